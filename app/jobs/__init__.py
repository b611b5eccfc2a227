"""Jobs: the only place where a job's status changes.

    queued  -> running | paused | cancelled
    running -> queued (turn, deploy, lost worker) | paused | succeeded | failed | cancelled
    paused  -> queued | cancelled
    failed, cancelled -> queued (retry: the same id, from the newest checkpoint)

Users call submit, the verbs, update and delete; workers call claim and then, naming its fence, renew, report,
record_checkpoint and one of release, succeed, fail and crashed; everybody calls sweep. Each takes the session of a writing
transaction. What a worker writes under a fence that is no longer the job's is refused with LeaseLost.
"""

import json
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import datasets, leases, registry
from app.db import clock
from app.errors import Conflict, FieldError, Invalid
from app.jobs import initials, plans, probes
from app.jobs.history import get, list_jobs, queue_position, queue_positions
from app.jobs.lifecycle import locked, move, note_status, refusal
from app.jobs.plans import Plan, plan
from app.jobs.reports import NewCheckpoint, NewEvent, record_checkpoint, report, resume_from, run_key
from app.jobs.turns import must_yield
from app.tables import ENDED, Checkpoint, Document, Job, new_id
from models.presets import UNKNOWN, Hardware

__all__ = [
    "NewCheckpoint", "NewEvent", "Order", "Plan", "Swept", "any_waiting", "cancel", "claim", "crashed", "delete", "fail", "get",
    "list_jobs", "pause", "plan", "queue_position", "queue_positions", "record_checkpoint", "release", "renew", "report",
    "resume", "resume_from", "retry", "run_key", "submit", "succeed", "sweep", "update",
]  # fmt: skip


class Order(StrEnum):
    """What a worker is to do with its job now."""

    CONTINUE = "continue"
    PAUSE = "pause"
    CANCEL = "cancel"
    YIELD = "yield"


class Swept(NamedTuple):
    """What a sweep did: the ids of the jobs that it took from lost workers, and how often to ring for those that wait."""

    moved: list[str]
    rings: int


# Users


def submit(
    session: Session,
    *,
    dataset: str,
    model: str | None = None,
    preset: str | None = None,
    config: Document | None = None,
    budget: Document | None = None,
    seed: int | None = None,
    priority: int = 0,
    initial: str | None = None,
    hardware: Hardware = UNKNOWN,
    metadata: Document | None = None,
) -> Job:
    """Queue a job, for the caller to ring for. Raises as `plan` does, and Invalid for a priority or metadata that cannot be kept."""
    datasets.hold(session, dataset)
    planned = plan(
        session, dataset=dataset, model=model, preset=preset, config=config, budget=budget, seed=seed, initial=initial,
        hardware=hardware,
    )  # fmt: skip
    initials.hold(session, planned.initial)
    time = clock(session)
    job = Job(
        id=new_id("job"), status="queued", desired="run", attempt=0, fence=0, last_seq=0, claimed_examples=0,
        priority=plans.check_priority(priority), queued_at=time, rung_at=time, created_at=time,
        dataset_id=planned.dataset.id, model_name=planned.model, config=planned.config, preset=planned.preset,
        chosen_preset=planned.chosen_preset, preset_reason=planned.preset_reason,
        initial=planned.initial and planned.initial.document(),
        progress={"examples_seen": 0, "examples_total": planned.examples_total}, metrics={},
        user_metadata=_checked_metadata(metadata or {}),
    )  # fmt: skip
    session.add(job)
    session.flush()
    note_status(session, job, "submitted")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """End a job: at once when it waits, at its worker's next look when it runs. Raises NotFound, InvalidState."""
    job = locked(session, job_id)
    if job.status == "running":
        _wish(session, job, "cancel")
    elif job.status != "cancelled":
        if job.status in ENDED:
            raise refusal(job, "be cancelled")
        move(session, job, "cancelled", "cancel")
    return job


def pause(session: Session, job_id: str) -> Job:
    """Take a job out of the queue, or have its worker checkpoint and let go of it. Raises NotFound, InvalidState."""
    job = locked(session, job_id)
    if job.status == "running" and job.desired != "cancel":
        _wish(session, job, "pause")
    elif job.status != "paused":
        if job.status != "queued":
            raise refusal(job, "be paused")
        move(session, job, "paused", "pause")
    return job


def resume(session: Session, job_id: str) -> Job:
    """Queue a paused job, for the caller to ring for, or take back the wish to pause a running one. Raises NotFound, InvalidState."""
    job = locked(session, job_id)
    if job.status == "running" and job.desired != "cancel":
        _wish(session, job, "run")
    elif job.status != "queued":
        if job.status != "paused":
            raise refusal(job, "be resumed")
        job.attempt = 0
        move(session, job, "queued", "resume")
    return job


def retry(session: Session, job_id: str) -> Job:
    """Queue a failed or cancelled job again, from its newest checkpoint, for the caller to ring for.

    Raises NotFound, InvalidState, Gone (its data, or the model that it would begin with).
    """
    job = locked(session, job_id)
    if job.status in {"failed", "cancelled"}:
        datasets.hold(session, job.dataset_id)
        datasets.ready(session, job.dataset_id)
        if resume_from(session, job) is None:
            initials.check_kept(session, job)
        move(session, job, "queued", "retry")
    elif job.desired != "run" or job.status not in {"queued", "running"}:
        raise refusal(job, "be retried")
    return job


def update(
    session: Session,
    job_id: str,
    *,
    priority: int | None = None,
    budget: Document | None = None,
    metadata: Document | None = None,
) -> Job:
    """Change what is given. A budget changes only while no trainer works by it; `metadata` is replaced whole.

    Raises NotFound, InvalidState, and Invalid as a submission would.
    """
    job = locked(session, job_id)
    if priority is not None and plans.check_priority(priority) != job.priority:
        if job.status == "succeeded":
            raise refusal(job, "get another priority")
        job.priority = priority
    if budget is not None:
        if job.status in {"running", "succeeded"}:
            raise refusal(job, "get another budget")
        job.config, total = plans.extended(session, job, budget)
        job.progress = job.progress | {"examples_total": total, "eta_seconds": None}
    if metadata is not None:
        job.user_metadata = _checked_metadata(metadata)
    return job


def delete(session: Session, job_id: str) -> set[str]:
    """Forget a job that does not run, and what is pinned of it. Raises NotFound, InvalidState, and InUse while an unfinished job begins with a checkpoint of it.

    After the commit, everything in the storage under `jobs/{job_id}` is to be deleted but the keys that this returns: snapshots
    that a model version was published from.
    """
    job = locked(session, job_id)
    if job.status == "running":
        raise refusal(job, "be deleted (cancel it first)")
    initials.check_unneeded(session, job_id)
    own = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job_id)).all()
    registry.forget(session, [job_id, *own])
    session.delete(job)
    return {key for snapshot in registry.published(session, job_id) for key in registry.snapshot_objects(snapshot)}


# Workers


def claim(session: Session, worker: str) -> Job | None:
    """The next job for this worker, running under a new fence, or None."""
    job = leases.claim(session, Job, worker)
    if job is None:
        return None
    checkpoint = resume_from(session, job)
    job.claimed_examples = 0 if checkpoint is None else checkpoint.examples_seen
    job.progress = job.progress | {"examples_seen": job.claimed_examples, "eta_seconds": None}
    job.started_at = job.started_at or job.claimed_at
    note_status(session, job, "claimed")
    return job


def any_waiting(session: Session) -> bool:
    """Whether a job is queued: one doorbell wakes one worker, who passes it on when more than its own job waited."""
    return leases.waiting(session, Job) > 0


def renew(session: Session, job_id: str, fence: int) -> Order:
    """Extend the lease and say what to do. Raises LeaseLost."""
    job = leases.renew(session, Job, job_id, fence)
    if job.desired != "run":
        return Order(job.desired)
    return Order.YIELD if must_yield(session, job) else Order.CONTINUE


def release(session: Session, job_id: str, fence: int, reason: str) -> None:
    """Let go of a checkpointed job: where to, its user's wish decides. Raises LeaseLost.

    `reason` "yield" puts it behind the others of its priority; after any other it keeps its place. Neither counts as an attempt.
    """
    job = leases.held(session, Job, job_id, fence)
    move(session, job, {"run": "queued", "pause": "paused", "cancel": "cancelled"}[job.desired], reason)


def succeed(session: Session, job_id: str, fence: int) -> None:
    """Publish the best snapshot as the next version of the job's model, and end the job. Raises LeaseLost, Conflict."""
    job = leases.held(session, Job, job_id, fence)
    best = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.best)).one_or_none()
    if best is None:
        raise Conflict(f"Job {job_id} has no checkpoint to publish.")
    registry.publish(session, name=job.model_name, checkpoint=best, job=job)
    job.progress = job.progress | {"eta_seconds": 0}
    move(session, job, "succeeded", "finished")


def fail(session: Session, job_id: str, fence: int, code: str, message: str) -> None:
    """End a job that cannot be trained, with a reason that a person understands. Raises LeaseLost."""
    job = leases.held(session, Job, job_id, fence)
    job.error = {"code": code, "message": message}
    move(session, job, "failed", code)


def crashed(session: Session, job_id: str, fence: int, code: str, message: str, *, behind: bool = False) -> None:
    """Let go of a job whose trainer died without a word: an attempt, as if its worker had been lost. Raises LeaseLost.

    It keeps its place in the queue, or goes `behind` the others of its priority, where it was to make room for them.
    """
    job = leases.held(session, Job, job_id, fence)
    job.attempt += 1
    _lose(session, job, code, message)
    if behind and job.status == "queued":
        job.queued_at = clock(session)


# Everybody


def sweep(session: Session) -> Swept:
    """Take jobs from workers whose lease is over, and count the rings that are due. May run anywhere, any number of times."""
    lost = leases.expire(session, Job)
    for job in lost:
        _lose(session, job, "worker_lost", "Its worker stopped answering.")
    session.flush()
    probes.sweep(session)
    return Swept([job.id for job in lost], leases.to_ring(session, Job))


def _lose(session: Session, job: Job, code: str, message: str) -> None:
    to = leases.after_loss(session, job)
    if to == "failed":
        job.error = {
            "code": code,
            "message": f"{job.attempt} runs in a row ended without progress. The last: {message}",
        }
    move(session, job, to, code)


def _wish(session: Session, job: Job, desired: str) -> None:
    if job.desired != desired:
        job.desired = desired
        note_status(session, job, {"run": "resume"}.get(desired, desired))


def _checked_metadata(metadata: Document) -> Document:
    """The metadata itself, when every database and every JSON reader can hold it. Raises Invalid."""
    try:
        json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        detail = "must be JSON without NaN, infinity or lone surrogates"
        raise Invalid(f"The metadata {detail}.", errors=[FieldError("#/metadata", detail)]) from error
    return metadata
