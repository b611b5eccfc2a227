"""Reading jobs: lists and pages, the queue, events, metrics."""

import itertools

import pytest
from sqlalchemy.orm import Session

from app import jobs
from app.db import Database
from app.errors import Invalid
from app.jobs import history
from app.tables import Event, Job
from tests.app.batches.rows import make_batch
from tests.factories import make_dataset, make_job, make_job_in


def test_pages_cover_every_job_once(any_database: Database) -> None:
    """Pages by cursor list every job, newest first, also those that were made at one moment, and not those made since."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        wanted = [make_job(session, dataset, created_at=float(number // 3)).id for number in range(10)]
        found: list[Job] = []
        cursor = None
        while True:
            rows, cursor = jobs.list_jobs(session, limit=4, cursor=cursor)
            found += rows
            make_job(session, dataset)
            if cursor is None:
                break
    assert sorted(job.id for job in found) == sorted(wanted)
    assert [job.created_at for job in found] == sorted((job.created_at for job in found), reverse=True)


def test_filters(any_database: Database) -> None:
    """Jobs can be listed by status, by model and by the id or name of their data set, together."""
    with any_database.writing() as session:
        cats, dogs = make_dataset(session, name="cats"), make_dataset(session, name="dogs")
        queued = make_job(session, cats)
        paused = make_job(session, cats, request={"model": "other"})
        jobs.pause(session, paused.id)
        make_job(session, dogs)

        def listed(**filters: str) -> set[str]:
            return {job.id for job in jobs.list_jobs(session, **filters)[0]}

        assert listed(dataset="cats") == listed(dataset=cats.id) == {queued.id, paused.id}
        assert listed(dataset="cats", status="queued") == listed(model="cats") == {queued.id}
        assert listed(model="other", status="queued") == listed(dataset="birds") == set()


@pytest.mark.parametrize("cursor", ["", "x", "WzFd", "é", "W" * 1000])
def test_a_made_up_cursor_is_refused(database: Database, cursor: str) -> None:
    """A cursor that no page gave is Invalid."""
    with database.reading() as session, pytest.raises(Invalid):
        jobs.list_jobs(session, cursor=cursor)


def add_ticks(session: Session, job: Job, count: int) -> None:
    for number in range(count):
        data = {"elapsed_seconds": number / 10, "loss_g": number * 1.0} | ({"r1": 5.0} if number % 2 else {})
        seq = 1000 + count - number  # as after a resume: the numbers say nothing about examples_seen
        session.add(Event(job_id=job.id, seq=seq, kind="metrics", examples_seen=number * 32, data=data, created_at=0.0))
    session.flush()


def test_metrics_are_columns(any_database: Database) -> None:
    """Every value that any tick had is a column over examples_seen, with None where a tick lacks it."""
    with any_database.writing() as session:
        job = make_job(session)
        assert history.metrics(session, job.id) == {"examples_seen": []}
        add_ticks(session, job, 3)
        assert history.metrics(session, job.id) == {
            "examples_seen": [0, 32, 64],
            "elapsed_seconds": [0.0, 0.1, 0.2],
            "loss_g": [0.0, 1.0, 2.0],
            "r1": [None, 5.0, None],
        }
        assert history.metrics(session, job.id, ["loss_g", "nothing"]) == {
            "examples_seen": [0, 32, 64],
            "loss_g": [0.0, 1.0, 2.0],
            "nothing": [None] * 3,
        }


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (7, 7), (100, 100), (500, 100), (0, 2), (-3, 2)])
def test_metrics_are_thinned_out_evenly(any_database: Database, asked: int, given: int) -> None:
    """No more points than asked for come back, evenly spaced, with the first and the last."""
    with any_database.writing() as session:
        job = make_job(session)
        add_ticks(session, job, 100)
        seen = history.metrics(session, job.id, ["loss_g"], max_points=asked)["examples_seen"]
    assert (len(seen), seen[0], seen[-1]) == (given, 0, 99 * 32)
    gaps = {later - earlier for earlier, later in itertools.pairwise(seen)}
    assert max(gaps) - min(gaps) <= 32


def test_events_after_and_of_a_kind(any_database: Database) -> None:
    """Events can be read from a number on, of some kinds, and no more than a limit at once."""
    with any_database.writing() as session:
        job = make_job(session)
        add_ticks(session, job, 5)
        assert [event.seq for event in history.events(session, job.id, after=1002, limit=2)] == [1003, 1004]
        assert [event.kind for event in history.events(session, job.id, kinds=["status", "grid"])] == ["status"]
        assert history.events(session, job.id, kinds=[]) == []
        assert history.events(session, "job_0") == []


def test_positions(any_database: Database) -> None:
    """The newest number of several jobs comes in one query; unknown ones are left out."""
    with any_database.writing() as session:
        first, second = make_job(session), make_job_in(session, "paused")
        assert history.positions(session, [first.id, second.id, "job_0"]) == {first.id: 1, second.id: 2}


def test_the_queue_at_a_glance(any_database: Database) -> None:
    """The summary counts jobs and batches by status and says since when the longest job waits."""
    with any_database.writing() as session:
        assert history.queue_summary(session) == {"counts": {}, "waiting_since": None, "batches": {}}
        for queued_at in (7.0, 5.0):
            make_job(session, queued_at=queued_at)
        make_job(session, status="paused", queued_at=1.0)
        make_batch(session)
        summary = history.queue_summary(session)
        assert summary == {"counts": {"queued": 2, "paused": 1}, "waiting_since": 5.0, "batches": {"queued": 1}}


def test_queue_positions_only_of_queued_jobs(any_database: Database) -> None:
    """Positions count the whole queue, and jobs that do not wait have none."""
    with any_database.writing() as session:
        ahead, behind = make_job(session, queued_at=1.0), make_job(session, queued_at=2.0)
        running = make_job(session, status="running")
        assert history.queue_positions(session, [behind, running]) == {behind.id: 2}
        assert history.queue_positions(session, [running]) == {}
        assert history.queue_position(session, ahead) == 1
