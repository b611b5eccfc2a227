from app import workers
from app.db import Database
from app.tables import Worker
from models.presets import UNKNOWN, Hardware


def beat(database: Database, worker: str, busy: int = 0, gpus: int = 0, cores: int = 2) -> None:
    with database.writing() as session:
        workers.beat(session, worker=worker, slots=2, busy=busy, device="CPU", gpus=gpus, cores=cores)


def heard(database: Database) -> list[tuple[str, int]]:
    with database.reading() as session:
        return [(row.id, row.busy) for row in workers.list_workers(session)]


def test_workers_are_listed_while_they_beat(any_database: Database) -> None:
    """A worker has one row, which says what it did last, until it leaves."""
    beat(any_database, "a:1")
    beat(any_database, "b:2")
    beat(any_database, "a:1", busy=1)
    assert heard(any_database) == [("a:1", 1), ("b:2", 0)]
    with any_database.writing() as session:
        workers.leave(session, "a:1")
    assert heard(any_database) == [("b:2", 0)]


def test_silent_workers_are_not_listed(any_database: Database) -> None:
    """A worker that has said nothing for a minute is taken for dead."""
    beat(any_database, "a:1")
    with any_database.writing() as session:
        session.get_one(Worker, "a:1").seen_at -= workers.SILENT_SECONDS + 1
    assert heard(any_database) == []
    beat(any_database, "a:1")
    assert heard(any_database) == [("a:1", 0)]


def test_presets_are_chosen_for_the_best_that_lives(any_database: Database) -> None:
    """What plans go by is a GPU if a living worker has one, and the most cores; an ordinary CPU while nobody lives."""
    found = []
    for worker, gpus, cores in (("", 0, 0), ("a:1", 0, 2), ("b:2", 0, 8), ("c:3", 1, 4)):
        if worker:
            beat(any_database, worker, gpus=gpus, cores=cores)
        with any_database.reading() as session:
            found.append(workers.hardware(session))
    assert found == [UNKNOWN, Hardware("cpu", 2), Hardware("cpu", 8), Hardware("cuda", 8)]
