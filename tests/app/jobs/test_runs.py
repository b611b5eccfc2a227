"""A worker's side of a job: claim, renew, report, checkpoint, and the ways to let go."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app import jobs
from app.db import Database, clock
from app.errors import Conflict, LeaseLost
from app.jobs import NewEvent, Order, history
from app.tables import Checkpoint, Job, ModelVersion
from tests.factories import claimed, make_dataset, make_job, make_job_in, new_checkpoint

WRITES: dict[str, Callable[..., object]] = {
    "renew": jobs.renew,
    "report": lambda session, job_id, fence: jobs.report(
        session, job_id, fence, [NewEvent("log", {"message": "late"})]
    ),
    "checkpoint": lambda session, job_id, fence: jobs.record_checkpoint(
        session, job_id, fence, jobs.NewCheckpoint(640, "late/state.pt", "late", "e" * 64, 1)
    ),
    "release": lambda session, job_id, fence: jobs.release(session, job_id, fence, "deploy"),
    "succeed": jobs.succeed,
    "fail": lambda session, job_id, fence: jobs.fail(session, job_id, fence, "late", "Late."),
    "crashed": lambda session, job_id, fence: jobs.crashed(session, job_id, fence, "late", "Late."),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("status", ["queued", "running", "paused", "cancelled", "succeeded"])
def test_late_writes_are_refused(any_database: Database, write: str, status: str) -> None:
    """Whatever became of the job, a worker that lost it can write nothing: no event, no row, no status."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        old = job.fence
        if status == "running":
            job.lease_until = 0.0
            session.flush()
            jobs.sweep(session)
            assert claimed(session, job).fence > old
        elif status == "succeeded":
            jobs.record_checkpoint(session, job.id, old, new_checkpoint(job, 320))
            jobs.succeed(session, job.id, old)
        else:
            {"paused": jobs.pause, "cancelled": jobs.cancel, "queued": jobs.get}[status](session, job.id)
            jobs.release(session, job.id, old, "deploy")
    with any_database.reading() as session:
        before = state(session.get_one(Job, job.id)), len(session.scalars(select(Checkpoint)).all())
    with pytest.raises(LeaseLost), any_database.writing() as session:
        WRITES[write](session, job.id, old)
    with any_database.reading() as session:
        assert before == (state(session.get_one(Job, job.id)), len(session.scalars(select(Checkpoint)).all()))


def state(job: Job) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


def test_claim_starts_where_the_newest_checkpoint_is(any_database: Database) -> None:
    """A claim begins at the newest checkpoint whose state is kept, and keeps the first start's time."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        started = job.started_at
        assert (job.claimed_examples, jobs.resume_from(session, job)) == (0, None)
        for seen in (160, 320):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen))
        jobs.report(session, job.id, job.fence, [NewEvent("metrics", {}, 400, 9.0)])
        jobs.release(session, job.id, job.fence, "deploy")
        claimed(session, job)
        resumed = jobs.resume_from(session, job)
        assert resumed is not None
        assert (job.fence, job.claimed_examples, resumed.examples_seen) == (2, 320, 320)
        assert (job.progress["examples_seen"], job.started_at) == (320, started)


@pytest.mark.parametrize(
    ("verb", "order", "status"),
    [(None, Order.CONTINUE, "queued"), (jobs.pause, Order.PAUSE, "paused"), (jobs.cancel, Order.CANCEL, "cancelled")],
)
def test_release_goes_where_the_user_wished(
    any_database: Database, verb: Callable[..., Job] | None, order: Order, status: str
) -> None:
    """A running job is told of the wish when it renews, and ends up there when it lets go; no attempt is counted."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, queued_at=5.0))
        if verb is not None:
            verb(session, job.id)
        assert jobs.renew(session, job.id, job.fence) == order
        jobs.release(session, job.id, job.fence, order)
        assert (job.status, job.attempt, job.worker, job.lease_until, job.queued_at) == (status, 0, None, None, 5.0)


def test_success_publishes_the_best(any_database: Database) -> None:
    """The best snapshot becomes the next version of the job's model in the transaction that ends the job."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, request={"model": "mine"}))
        for seen, kid in ((160, 0.3), (320, 0.1), (640, 0.2)):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen, kid=kid))
        jobs.succeed(session, job.id, job.fence)
    with any_database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        assert (version.name, version.version, version.examples_seen, version.kid) == ("mine", 1, 320, 0.1)
        job = session.get_one(Job, job.id)
        assert (job.status, job.worker, job.error) == ("succeeded", None, None)
        assert job.finished_at is not None


def test_success_without_a_checkpoint_is_refused(any_database: Database) -> None:
    """A job that has nothing to publish cannot succeed, and goes on running."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
    with pytest.raises(Conflict), any_database.writing() as session:
        jobs.succeed(session, job.id, job.fence)
    with any_database.reading() as session:
        assert session.get_one(Job, job.id).status == "running"


def test_success_beats_a_wish_that_came_too_late(any_database: Database) -> None:
    """A job that finished before its worker heard of the cancellation has succeeded."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 640))
        jobs.cancel(session, job.id)
        jobs.succeed(session, job.id, job.fence)
        assert (job.status, job.desired) == ("succeeded", "run")


def test_failure_keeps_its_reason(any_database: Database) -> None:
    """A failed job says why, in its row and in its history."""
    with any_database.writing() as session:
        job = make_job_in(session, "failed")
        error = {"code": "diverged", "message": "The discriminator won."}
        assert (job.status, job.error) == ("failed", error)
        assert history.events(session, job.id)[-1].data["error"] == error


def test_crashes_without_progress_end_a_job(any_database: Database) -> None:
    """Three crashes in a row without a new checkpoint fail the job with the last one's code; it waits in between."""
    with any_database.writing() as session:
        job = make_job(session, queued_at=5.0)
        for attempt in (1, 2, 3):
            claimed(session, job)
            jobs.crashed(session, job.id, job.fence, "out_of_memory", "The trainer was killed.")
            assert (job.attempt, job.queued_at) == (attempt, 5.0)
            assert job.status == ("failed" if attempt == 3 else "queued")
        assert job.error is not None
        assert job.error["code"] == "out_of_memory"
        assert job.error["message"].startswith("3 runs in a row ended without progress.")


def test_progress_sets_attempts_back(any_database: Database) -> None:
    """A checkpoint beyond the claim's first step sets attempts back to 0; one at its very start does not."""
    with any_database.writing() as session:
        job = make_job(session)
        for examples_seen, attempts in ((0, 1), (0, 2), (32, 1), (32, 2), (64, 1)):
            claimed(session, job)
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, examples_seen))
            jobs.crashed(session, job.id, job.fence, "crashed", "It crashed.")
            assert (job.status, job.attempt) == ("queued", attempts)


def test_renew_extends_the_lease_from_now(any_database: Database) -> None:
    """Renewing counts the lease from the database's present time."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        job.lease_until = 0.0
        session.flush()
        jobs.renew(session, job.id, job.fence)
        assert job.lease_until == pytest.approx(clock(session) + any_database.settings.lease_seconds, abs=1)


def test_any_waiting(database: Database) -> None:
    """Tells whether a job is queued."""
    with database.writing() as session:
        assert not jobs.any_waiting(session)
        job = make_job(session, make_dataset(session))
        assert jobs.any_waiting(session)
        claimed(session, job)
        assert not jobs.any_waiting(session)
