import sqlite3
import threading
import time
from contextlib import closing

import pytest

from app import jobs, leases
from app.db import Database
from app.errors import LeaseLost, Unavailable
from app.tables import Job
from tests.factories import make_dataset, make_job
from tests.servers import wait_until
from worker.lease import Lease, clock


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def job(database: Database) -> Job:
    """A claimed job."""
    with database.writing() as session:
        make_job(session, make_dataset(session))
    with database.writing() as session:
        job = jobs.claim(session, "host:1")
    assert job is not None
    return job


def lease_of(job: Job, database: Database, stopping: threading.Event) -> Lease:
    return Lease(database, job.id, job.fence, jobs.renew, asked_at=clock(), stopping=stopping)


def lease_until(database: Database, job: Job) -> float:
    with database.reading() as session:
        return jobs.get(session, job.id).lease_until or 0


def take_away(database: Database, job: Job) -> None:
    """Let the lease run out and the sweep find it, as if this process had slept."""
    with database.writing() as session:
        session.get_one(Job, job.id).lease_until = 0
    with database.writing() as session:
        assert leases.expire(session, Job)


def test_lease_is_renewed(database: Database, job: Job, stopping: threading.Event) -> None:
    """The lease moves on, and holds, for as long as the block runs."""
    with lease_of(job, database, stopping) as lease:
        before = lease_until(database, job)
        wait_until(lambda: lease_until(database, job) > before)
        lease.check()


def test_order_of_a_user_arrives(database: Database, job: Job, stopping: threading.Event) -> None:
    """What a user asks for is known within a renewal; so is the end of this worker, at once."""
    with lease_of(job, database, stopping) as lease:
        assert lease.stop_reason is None
        stopping.set()
        assert lease.stop_reason == "deploy"
        with database.writing() as session:
            jobs.pause(session, job.id)
        wait_until(lambda: lease.stop_reason == "pause")


def test_lost_lease_kills(database: Database, job: Job, stopping: threading.Event) -> None:
    """Once a newer run has the job, the child is killed and nothing can be written."""
    killed = threading.Event()
    with lease_of(job, database, stopping) as lease:
        lease.on_loss(killed.set)
        take_away(database, job)
        assert killed.wait(5)
        with pytest.raises(LeaseLost):
            lease.write(jobs.report, [])


def test_late_write_is_refused_by_the_fence(database: Database, job: Job, stopping: threading.Event) -> None:
    """A write that the local clock still allows is refused by the row."""
    lease = lease_of(job, database, stopping)  # not entered: it renews nothing and so does not know
    take_away(database, job)
    lease.check()
    with pytest.raises(LeaseLost):
        lease.write(jobs.succeed)


def test_unreachable_database_kills_in_time(database: Database, job: Job, stopping: threading.Event) -> None:
    """A lease that cannot be renewed kills the child before the row's lease ends, though the renewal still hangs."""
    killed_at: list[float] = []
    until = lease_until(database, job)
    path = database.engine.url.database
    assert path is not None
    with lease_of(job, database, stopping) as lease, closing(sqlite3.connect(path, isolation_level=None)) as other:
        lease.on_loss(lambda: killed_at.append(time.time()))
        other.execute("BEGIN IMMEDIATE")  # every writer waits now
        wait_until(lambda: killed_at)
        other.execute("ROLLBACK")
        assert until - 1 < killed_at[0] < until
        with pytest.raises(LeaseLost):
            lease.check()


def test_killer_that_comes_late_still_kills(database: Database, job: Job, stopping: threading.Event) -> None:
    """A child that is started just after the lease was lost is killed at once."""
    killed = threading.Event()
    with lease_of(job, database, stopping) as lease:
        take_away(database, job)
        wait_until(lease._lost.is_set)
        lease.on_loss(killed.set)
    assert killed.is_set()


def test_storage_outage_is_waited_out(database: Database, job: Job, stopping: threading.Event) -> None:
    """While the storage does not answer the run waits; a run that should stop waits no longer."""
    answers = iter([Unavailable("away"), Unavailable("away"), "there"])

    def storage() -> str:
        answer = next(answers, Unavailable("away again"))
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    with lease_of(job, database, stopping) as lease:
        assert lease.patiently(storage) == "there"
        stopping.set()
        with pytest.raises(Unavailable, match="away again"):
            lease.patiently(storage)
