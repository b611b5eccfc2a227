"""What a running claim reports: events and checkpoints. Every write is refused once the claim's fence is no longer the job's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import leases
from app.db import clock
from app.jobs.lifecycle import append
from app.tables import Checkpoint, Document, Event, Job, new_id

TICKS = (
    "metrics",
    "grid",
    "evaluation",
    "checkpoint",
)  # one row for each examples_seen: a resumed stretch does not appear twice
KINDS = frozenset({"started", "metrics", "grid", "evaluation", "warning", "verdict", "log"})
TIMED = ("metrics", "evaluation")  # kinds whose data says when it was
PROGRESS = ("examples_total", "examples_per_second", "eta_seconds")


@dataclass(frozen=True)
class NewEvent:
    """A line of a trainer's log. A grid's `data` carries the storage `key` of its picture."""

    kind: str  # one of KINDS
    data: Document
    examples_seen: int | None = None
    elapsed_seconds: float | None = None


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint whose objects are stored. `sha256` and `size` are those of generator.safetensors.

    Without a `state_key` it is a snapshot alone, and no progress: newer ones came before its state could be stored.
    """

    examples_seen: int
    state_key: str | None
    snapshot_key: str
    sha256: str
    size: int
    kid: float | None = None


def run_key(job_id: str, fence: int) -> str:
    """The storage prefix of everything that one claim of a job stores."""
    return f"jobs/{job_id}/{fence}"


def report(session: Session, job_id: str, fence: int, events: Iterable[NewEvent]) -> None:
    """Add events in their order to the history, and bring progress, metrics and verdict up to date. Raises LeaseLost."""
    job = leases.held(session, Job, job_id, fence)
    wanted = _newest_ticks([_checked(event) for event in events])
    for kind in TICKS:
        _forget_ticks(session, job, kind, [event.examples_seen for event in wanted if event.kind == kind])
    for event in wanted:
        _advance(job, event)
        if event.kind == "started":
            _start(session, job, event)
        else:
            append(session, job, event.kind, event.data, event.examples_seen)


def record_checkpoint(session: Session, job_id: str, fence: int, new: NewCheckpoint) -> list[str]:
    """Make a stored checkpoint count; returns the storage keys of training state that is no longer needed. Raises LeaseLost.

    The evaluation that was reported for the same examples_seen becomes its own. It takes the place of one of the same examples_seen from an earlier claim. The best keeps its state, and so does the newest
    that has one.
    """
    job = leases.held(session, Job, job_id, fence)
    if new.state_key is not None and new.examples_seen > job.claimed_examples:
        job.attempt = 0  # progress that the next run can go on from: those that were lost before no longer count
    rows = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.examples_seen)
    ).all()
    old = next((row for row in rows if row.examples_seen == new.examples_seen), None)
    unneeded = [old.state_key] if old is not None and old.state_key != new.state_key else []
    row = _row_in_place_of(session, job_id, old, new)
    for column, value in vars(new).items():
        setattr(row, column, value)
    row.fence, row.created_at = fence, clock(session)
    row.evaluation = _evaluation_at(session, job, new.examples_seen)
    every = [*(other for other in rows if other is not old), row]
    unneeded += _prune(every)
    # It may have taken longer to store than the metrics that came after it.
    job.progress = job.progress | {"examples_seen": max(new.examples_seen, job.progress.get("examples_seen", 0))}
    _forget_ticks(session, job, "checkpoint", [new.examples_seen])
    data = {"id": row.id, "sha256": row.sha256, "size": row.size, "kid": row.kid, "best": row.best}
    append(session, job, "checkpoint", data, new.examples_seen)
    return [key for key in unneeded if key is not None]


def _row_in_place_of(session: Session, job_id: str, old: Checkpoint | None, new: NewCheckpoint) -> Checkpoint:
    """The old row when the bytes are the same, else one under another id: an id names one generator for ever."""
    if old is not None:
        if old.sha256 == new.sha256:
            return old
        session.delete(old)
        session.flush()  # two cannot stand at one place
    row = Checkpoint(id=new_id("ckpt"), job_id=job_id)
    session.add(row)
    return row


def resume_from(session: Session, job: Job) -> Checkpoint | None:
    """The newest checkpoint whose training state is kept."""
    resumable = select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.state_key.is_not(None))
    return session.scalars(resumable.order_by(Checkpoint.examples_seen.desc()).limit(1)).one_or_none()


def _prune(checkpoints: Sequence[Checkpoint]) -> list[str | None]:
    """Mark the best (lowest kid; without any, the newest) and take the state from all but it and the newest that has one.

    A kid counts that is in the features of the last one: others cannot be compared.
    """
    newest = max(checkpoints, key=lambda row: row.examples_seen)
    resumable = max(checkpoints, key=lambda row: (row.state_key is not None, row.examples_seen))
    measured = sorted((row for row in checkpoints if row.kid is not None), key=lambda row: row.examples_seen)
    alike = [row for row in measured if _features(row) == _features(measured[-1])]
    best = min(alike, key=lambda row: (row.kid, -row.examples_seen), default=newest)
    unneeded: list[str | None] = []
    for row in checkpoints:
        row.best = row is best
        if row not in {resumable, best} and row.state_key is not None:
            unneeded.append(row.state_key)
            row.state_key = None
    return unneeded


def _features(row: Checkpoint) -> Any:
    return ((row.evaluation or {}).get("features") or {}).get("name")


def _evaluation_at(session: Session, job: Job, examples_seen: int) -> Document | None:
    at = (Event.job_id == job.id, Event.kind == "evaluation", Event.examples_seen == examples_seen)
    return session.scalars(select(Event.data).where(*at)).one_or_none()


def _start(session: Session, job: Job, event: NewEvent) -> None:
    """The engine that a job's results are exact for is the one that it began from nothing with."""
    append(session, job, "log", {"message": "started"} | event.data, event.examples_seen)
    if job.fingerprint is None or not event.data["resumed"]:
        job.fingerprint = event.data["fingerprint"]


def _advance(job: Job, event: NewEvent) -> None:
    progress: Document = {name: event.data[name] for name in PROGRESS if name in event.data}
    if event.examples_seen is not None:
        progress["examples_seen"] = event.examples_seen
    if event.elapsed_seconds is not None:
        progress["elapsed_seconds"] = event.elapsed_seconds
    job.progress = job.progress | progress
    if event.kind == "metrics":
        job.metrics = event.data
    if event.kind == "evaluation":
        job.evaluation = event.data
    if event.kind == "verdict":
        job.verdict = event.data


def _checked(event: NewEvent) -> NewEvent:
    """The event as it may be stored: JSON knows no NaN and no infinity, and a diverging loss is one."""
    if event.kind not in KINDS:
        raise ValueError(f"a claim reports no event of kind {event.kind!r}")
    elapsed = {"elapsed_seconds": event.elapsed_seconds} if event.kind in TIMED else {}
    return NewEvent(event.kind, _finite(elapsed | event.data), event.examples_seen, event.elapsed_seconds)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _newest_ticks(events: list[NewEvent]) -> list[NewEvent]:
    """Without the ticks that a later event of the same batch replaces."""
    last = {(event.kind, event.examples_seen): index for index, event in enumerate(events) if event.kind in TICKS}
    return [event for i, event in enumerate(events) if last.get((event.kind, event.examples_seen), i) == i]


def _forget_ticks(session: Session, job: Job, kind: str, examples_seen: list[int | None]) -> None:
    if examples_seen:
        mine = (Event.job_id == job.id, Event.kind == kind, Event.examples_seen.in_(examples_seen))
        session.execute(delete(Event).where(*mine), execution_options={"synchronize_session": False})
