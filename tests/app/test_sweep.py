"""The sweep: lost work goes back, waiting work is rung for, old rows go."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import redis
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import batches, datasets, jobs
from app.db import Database, clock
from app.queue import Bell
from app.storage import Storage
from app.sweep import Sweeper, sweep
from app.tables import Dataset, IdempotencyKey, Job, Worker
from tests.app.batches.rows import make_batch, succeeded
from tests.factories import claimed, make_dataset, make_job, make_job_in
from tests.servers import RedisServer, wait_until

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    ("verb", "status"),
    [(None, "queued"), (jobs.pause, "paused"), (jobs.cancel, "cancelled")],
    ids=["queued", "paused", "cancelled"],
)
def test_a_lost_job_goes_where_its_user_wished(
    any_database: Database, verb: Callable[..., Job] | None, status: str
) -> None:
    """A job whose worker is lost gets a new fence, an attempt more, its old place, and the status that was wished for."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, queued_at=5.0))
        if verb is not None:
            verb(session, job.id)
        job.lease_until = 0.0
    with any_database.writing() as session:
        assert sweep(session).moved == [job.id]
    with any_database.reading() as session:
        job = session.get_one(Job, job.id)
        assert (job.status, job.fence, job.attempt, job.queued_at, job.worker) == (status, 2, 1, 5.0, None)


def test_three_lost_workers_fail_a_job(any_database: Database) -> None:
    """A job that is lost three times without progress fails and says so."""
    with any_database.writing() as session:
        job = make_job(session)
        for _ in range(3):
            claimed(session, job).lease_until = 0.0
            session.flush()
            jobs.sweep(session)
        assert job.status == "failed"
        assert job.error == {
            "code": "worker_lost",
            "message": "3 runs in a row ended without progress. The last: Its worker stopped answering.",
        }


def test_many_sweeps_at_once_do_what_one_would(any_database: Database) -> None:
    """Five threads that sweep at once move each lost job once and ring once for each that waits."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        lost = [claimed(session, make_job(session, dataset)) for _ in range(8)]
        for job in lost:
            job.lease_until = 0.0
        waiting = [make_job(session, dataset, rung_at=None).id for _ in range(3)]

    def sweep_once(_: int) -> tuple[list[str], int]:
        with any_database.writing() as session:
            result = sweep(session)
            return result.moved, result.train_rings

    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(sweep_once, range(5)))
    assert sorted(job_id for moved, _ in results for job_id in moved) == sorted(job.id for job in lost)
    assert sum(rings for _, rings in results) == len(lost) + len(waiting)
    with any_database.reading() as session:
        rows = session.scalars(select(Job)).all()
        assert {(job.status, job.fence, job.attempt) for job in rows if job.id not in waiting} == {("queued", 2, 1)}
        assert {job.last_seq for job in rows if job.id not in waiting} == {3}


def test_lost_preparations_are_tried_again(any_database: Database) -> None:
    """A data set whose worker is lost waits again, and fails with a reason the third time."""
    with any_database.writing() as session:
        once = make_dataset(session, status="running", attempt=0, lease_until=0.0)
        thrice = make_dataset(session, status="running", attempt=2, lease_until=0.0)
        assert sweep(session).io_rings == 1
    with any_database.reading() as session:
        assert session.get_one(Dataset, once.id).status == "queued"
        failed = session.get_one(Dataset, thrice.id)
        assert failed.status == "failed"
        assert failed.error == {
            "code": "worker_lost",
            "message": "3 attempts to prepare it ended early. The last: Its worker stopped answering.",
        }
        assert failed.finished_at is not None


def test_old_rows_go(any_database: Database) -> None:
    """Idempotency keys are kept for a day, and workers for ten minutes after they were last seen."""
    with any_database.writing() as session:
        time = clock(session)
        for age in (0.0, 86_300.0, 86_500.0):
            key = {"scope": "s", "key": str(age), "fingerprint": "f", "status_code": 201, "body": {}}
            session.add(IdempotencyKey(**key, created_at=time - age))
        for age in (0.0, 500.0, 700.0):
            session.add(Worker(id=str(age), slots=1, busy=0, device="cpu", started_at=0.0, seen_at=time - age))
        session.flush()
        sweep(session)
        assert sorted(session.scalars(select(IdempotencyKey.key))) == ["0.0", "86300.0"]
        assert sorted(session.scalars(select(Worker.id))) == ["0.0", "500.0"]


@pytest.fixture
def sweeper(database: Database, redis_server: RedisServer) -> Iterator[Sweeper]:
    settings = database.settings.model_copy(update={"redis_url": redis_server.url})
    with closing(Bell(settings)) as bell:
        yield Sweeper(database, bell, settings)


def test_the_sweeper_rings_again(database: Database, redis_server: RedisServer, sweeper: Sweeper) -> None:
    """A job whose doorbell was lost is rung for by the running sweep, again and again while nobody takes it."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
        with database.writing() as session:
            make_job(session)
        sweeper.start()
        for _ in range(2):
            wait_until(lambda: client.llen("train") == 1)
            client.flushall()
        sweeper.stop()


def test_the_sweeper_outlives_a_locked_database(
    database: Database, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the database cannot be written the sweep says so and goes on trying, and it stops when told to."""
    monkeypatch.setattr("app.db.BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(Database(database.settings)) as impatient, closing(Bell(database.settings)) as bell:
        sweeper = Sweeper(impatient, bell, database.settings)
        with database.writing() as session:
            job = claimed(session, make_job(session))
            job.lease_until = 0.0
            session.flush()
            sweeper.start()
            wait_until(lambda: "sweep.failed" in capsys.readouterr().out)
        wait_until(lambda: status_of(database, job.id) == "queued")
        sweeper.stop()
    assert not any(thread.name == "sweep" for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_does_not_live_on_without_its_sweep(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that breaks is logged and ends the process, for whoever started it to start it again."""
    with database.writing() as session:
        session.execute(text("DROP TABLE workers"))
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        with closing(Bell(database.settings)) as bell:
            sweeper = Sweeper(database, bell, database.settings)
            sweeper.start()
            assert asked.wait(30)
            sweeper.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "process.broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "queue",
    [
        make_job,
        lambda session: jobs.retry(session, make_job_in(session, "failed").id),
        lambda session: jobs.resume(session, make_job_in(session, "paused").id),
        lambda session: datasets.register_builtin(session, "digits"),
    ],
    ids=["submitted", "retried", "resumed", "registered"],
)
def test_what_its_user_was_rung_for_is_rung_for_again_later(
    any_database: Database, queue: Callable[[Session], Job | Dataset]
) -> None:
    """Whoever queues work for a user rings for it, and the sweep only when `ring_seconds` have brought no worker."""
    with any_database.writing() as session:
        row = queue(session)
        session.flush()
        result = sweep(session)
        assert (result.train_rings, result.io_rings) == (0, 0)
        assert row.rung_at is not None
        row.rung_at -= any_database.settings.ring_seconds + 0.1
        session.flush()
        result = sweep(session)
        assert result.train_rings + result.io_rings == 1


def status_of(database: Database, job_id: str) -> str:
    with database.reading() as session:
        return session.get_one(Job, job_id).status


def test_the_sweeper_deletes_what_has_expired(database: Database, sweeper: Sweeper) -> None:
    """The files of a batch go once its time is over."""
    storage = Storage(database.settings.storage_url)
    with database.writing() as session:
        batch = succeeded(session, make_batch(session))
        storage.put_bytes(batches.shards(session, batch.id)[0].key, b"x")
        batch.expires_at = clock(session) - 1
    assert sweeper.sweep_once().unneeded == [f"batches/{batch.id}"]
    assert list(storage.list("batches")) == []


def test_a_waiting_batch_is_rung_for(database: Database, redis_server: RedisServer, sweeper: Sweeper) -> None:
    """On the queue of its own."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
        with database.writing() as session:
            make_batch(session).rung_at = None
        sweeper.start()
        wait_until(lambda: client.llen("batch") == 1)
        sweeper.stop()
