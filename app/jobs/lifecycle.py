"""The one table of a job's states, the one function that moves a job from one to another, and its line in the history."""

from typing import Any

from sqlalchemy.orm import Session

from app import leases
from app.db import clock
from app.errors import InvalidState, NotFound
from app.tables import ENDED, Document, Event, Job

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
    "succeeded": frozenset(),
}


def locked(session: Session, job_id: str) -> Job:
    """The job as it stands, held against other writers until the transaction ends. Raises NotFound."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound(f"There is no job {job_id[:100]!r}: GET /v1/jobs lists those that there are.")
    return job


def move(session: Session, job: Job, to: str, reason: str) -> None:
    """Give a locked job its next status, let go of it, and write a status event. Raises InvalidState."""
    if to not in TRANSITIONS[job.status]:
        raise refusal(job, f"become {to}")
    leases.free(job)
    time = clock(session)
    if job.status in ENDED:  # a retry: a fresh start from the newest checkpoint
        job.attempt, job.error, job.verdict, job.finished_at = 0, None, None, None
    if to == "queued" and (job.status != "running" or reason == "yield"):
        # Behind its priority; a job that lost its worker or made room for a deploy keeps its place.
        job.queued_at = time
    if to == "queued" and job.status != "running":
        job.rung_at = time  # whoever lets a user queue a job rings for it, once that is committed
    if to in ENDED:
        job.finished_at = time
    job.status, job.desired = to, {"paused": "pause", "cancelled": "cancel"}.get(to, "run")
    note_status(session, job, reason)


def note_status(session: Session, job: Job, reason: str) -> None:
    """Write the job's present status into its history."""
    data: Document = {
        "status": job.status,
        "desired": job.desired,
        "reason": reason,
        "attempt": job.attempt,
        "fence": job.fence,
    }
    append(session, job, "status", data | ({"error": job.error} if job.error else {}))


def append(session: Session, job: Job, kind: str, data: Document, examples_seen: int | None = None) -> None:
    """Write the next event of a job that this transaction holds: inserted, updated or locked in it, so that seq has no rival."""
    job.last_seq += 1
    event: Any = {"job_id": job.id, "seq": job.last_seq, "kind": kind, "examples_seen": examples_seen, "data": data}
    session.add(Event(**event, created_at=clock(session)))


def refusal(job: Job, verb: str) -> InvalidState:
    """The error for a verb that the job's present state does not allow."""
    wish = {"pause": " and about to pause", "cancel": " and about to be cancelled"}
    state = f"{job.status}{wish.get(job.desired, '') if job.status == 'running' else ''}"
    return InvalidState(f"Job {job.id} cannot {verb}: it is {state}.", job.status)
