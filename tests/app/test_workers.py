from app import workers
from app.db import Database
from app.tables import Worker


def beat(database: Database, worker: str, busy: int = 0) -> None:
    with database.writing() as session:
        workers.beat(session, worker=worker, slots=2, busy=busy, device="CPU")


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
