"""Batches: the samples of up to a million seeds, made into shards by a worker and kept for some days.

    submit -> queued -> (claim) running -> succeeded | failed | cancelled      running -> queued (turn, deploy, lost worker)

Users call submit, cancel and delete; workers call claim and then, naming its fence, renew, record_shard and one of release,
succeed, fail and crashed; everybody calls sweep. Each takes the session of a writing transaction. A shard counts once its row is
committed, and rows are written in order, so that whoever claims a batch goes on after the last of them.

A batch that is deleted, or that has expired, keeps its row and is Gone; one that failed or was cancelled keeps nothing else either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import leases, registry
from app.batches.containers import CONTAINERS
from app.batches.requests import Request, check
from app.db import clock, now, settings_of
from app.errors import Gone, InvalidState, NotFound
from app.paging import DEFAULT_LIMIT, fetch_page
from app.tables import ENDED, Batch, BatchShard, Document, new_id

__all__ = [
    "NewShard", "Request", "cancel", "claim", "crashed", "delete", "fail", "get", "list_batches", "prefix", "record_shard",
    "release", "renew", "run_key", "shard", "shard_count", "shard_key", "shards", "submit", "succeed", "sweep",
]  # fmt: skip

LIVE = Batch.deleted_at.is_(None)


@dataclass(frozen=True)
class NewShard:
    """A shard whose object is stored. `body` is how many of its bytes come before what ends the file."""

    index: int
    key: str
    samples: int
    size: int
    body: int
    sha256: str
    engine: str
    encoder: str | None


class Swept(NamedTuple):
    """What a sweep did: how often to ring for those that wait, and the storage prefixes that nobody needs any more."""

    rings: int
    unneeded: list[str]


# Users


def submit(session: Session, request: Request) -> Batch:
    """Queue a batch, for the caller to ring for.

    Raises Invalid, and NotFound, Gone and InvalidState for its model, which nobody can delete before the batch has ended.
    """
    limit = settings_of(session).batch_limit
    model = registry.resolve(session, request.model)
    registry.hold(session, model.label)
    checked = check(request, model.info, limit=limit)
    time = clock(session)
    batch = Batch(
        id=new_id("batch"), status="queued", desired="run", attempt=0, fence=0, queued_at=time, rung_at=time, created_at=time,
        model=model.label, sha256=model.sha256, snapshot_key=model.snapshot_key, info=model.info,
        seeds=checked.seeds, options=checked.options, total=checked.total,
        progress={"done": 0, "samples_per_second": None, "eta_seconds": None},
    )  # fmt: skip
    session.add(batch)
    session.flush()
    return batch


def get(session: Session, batch_id: str) -> Batch:
    """Raises NotFound, and Gone for one that was deleted or has expired."""
    return _present(session.get(Batch, batch_id), batch_id)


def list_batches(
    session: Session, *, status: str | None = None, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> tuple[Sequence[Batch], str | None]:
    """A page of batches, newest first, and the cursor of the next. Raises Invalid for a bad cursor."""
    query = select(Batch).where(LIVE)
    if status is not None:
        query = query.where(Batch.status == status)
    return fetch_page(session, query, Batch.created_at, Batch.id, limit=limit, cursor=cursor)


def shards(session: Session, batch_id: str) -> Sequence[BatchShard]:
    """Those that are made, in order."""
    return session.scalars(select(BatchShard).where(BatchShard.batch_id == batch_id).order_by(BatchShard.index)).all()


def shard(session: Session, batch: Batch, index: int) -> BatchShard:
    """One that is made. Raises NotFound, and InvalidState while it is not."""
    if index >= (n := shard_count(batch)):
        raise NotFound(f"Batch {batch.id} has the shards 0 to {n - 1}, and no shard {index}.")
    found = session.get(BatchShard, (batch.id, index))
    if found is None:
        made = "is not made yet" if batch.status not in ENDED else "is not there"
        raise InvalidState(f"Shard {index} of batch {batch.id} {made}: the batch is {batch.status}.", batch.status)
    return found


def cancel(session: Session, batch_id: str) -> Batch:
    """End a batch: at once when it waits, at its worker's next look when it runs. Raises NotFound, Gone, InvalidState.

    Once this has committed, everything under `prefix` is to be deleted of one that is cancelled.
    """
    batch = _locked(session, batch_id)
    if batch.status == "running":
        batch.desired = "cancel"
    elif batch.status != "cancelled":
        if batch.status in ENDED:
            detail = f"Batch {batch.id} cannot be cancelled: it is {batch.status}. DELETE removes it."
            raise InvalidState(detail, batch.status)
        _end(session, batch, "cancelled")
    return batch


def delete(session: Session, batch_id: str) -> str:
    """Delete a batch; gives the storage prefix to delete once this has committed. Raises NotFound and Gone.

    The run that makes it loses its lease: it ends at its next renewal, and deletes what it stored since.
    """
    batch = _locked(session, batch_id)
    if batch.status not in ENDED:
        _end(session, batch, "cancelled")
    _forget(session, [batch.id])
    batch.deleted_at = clock(session)
    return prefix(batch.id)


# Workers


def claim(session: Session, worker: str) -> Batch | None:
    """The next batch to make, leased to `worker`; None when none waits."""
    batch = leases.claim(session, Batch, worker)
    if batch is not None:
        batch.started_at = batch.started_at or batch.claimed_at
    return batch


def renew(session: Session, batch_id: str, fence: int) -> str | None:
    """Prolong the lease; `cancel` when its user wants that, `yield` when it has had its turn and others wait. Raises LeaseLost."""
    batch = leases.renew(session, Batch, batch_id, fence)
    if batch.desired == "cancel":
        return "cancel"
    ran = clock(session) - (batch.claimed_at or 0.0)
    return "yield" if ran >= settings_of(session).time_slice_seconds and leases.waiting(session, Batch) else None


def record_shard(
    session: Session, batch_id: str, fence: int, new: NewShard, samples_per_second: float | None = None
) -> None:
    """The next shard is made and stored. Raises LeaseLost; ValueError for any but the next. One that stands already stays."""
    batch = leases.held(session, Batch, batch_id, fence)
    stored = session.get(BatchShard, (batch_id, new.index))
    if stored is not None and stored.key == new.key:  # the answer to its commit was lost
        return
    if new.index != _made(session, batch_id):
        raise ValueError(f"shard {new.index} of {batch_id} is not the next one")
    session.add(BatchShard(batch_id=batch_id, **vars(new)))
    done = min(batch.total, (new.index + 1) * batch.options["shard_size"])
    eta = round((batch.total - done) / samples_per_second, 1) if samples_per_second else None
    batch.progress = {"done": done, "samples_per_second": samples_per_second, "eta_seconds": eta}
    batch.attempt = 0


def succeed(session: Session, batch_id: str, fence: int, *, size: int, sha256: str, directory: Document | None) -> None:
    """All shards are made; `size` and `sha256` are of the archive, `directory` ({"key", "size"}) is a zip's. Raises LeaseLost."""
    batch = leases.held(session, Batch, batch_id, fence)
    batch.archive = {"size": size, "sha256": sha256, "directory": directory}
    batch.progress = batch.progress | {"eta_seconds": 0}
    _end(session, batch, "succeeded")


def fail(session: Session, batch_id: str, fence: int, code: str, message: str) -> None:
    """End a batch that cannot be made, for a reason that its owner reads. Raises LeaseLost."""
    batch = leases.held(session, Batch, batch_id, fence)
    batch.error = {"code": code, "message": message}
    _end(session, batch, "failed")


def release(session: Session, batch_id: str, fence: int, reason: str) -> None:
    """Give the batch back to the queue, behind the others after its turn, or end it when its user wants that. Raises LeaseLost."""
    batch = leases.held(session, Batch, batch_id, fence)
    if batch.desired == "cancel":
        _end(session, batch, "cancelled")
        return
    leases.free(batch)
    batch.status = "queued"
    if reason == "yield":
        batch.queued_at = clock(session)


def crashed(session: Session, batch_id: str, fence: int, code: str, message: str) -> None:
    """The run died without giving a reason: it is tried again, until `max_attempts` in a row made no shard. Raises LeaseLost."""
    batch = leases.held(session, Batch, batch_id, fence)
    batch.attempt += 1
    _lose(session, batch, code, message)


# Everybody


def sweep(session: Session) -> Swept:
    """Take batches from workers whose lease is over, and let go of those that have expired. May run anywhere, any number of times."""
    lost = leases.expire(session, Batch)
    for batch in lost:
        _lose(session, batch, "worker_lost", "Its worker stopped answering.")
    session.flush()
    outdated = select(Batch).where(Batch.expires_at < now(), LIVE).order_by(Batch.id).with_for_update(skip_locked=True)
    expired = session.scalars(outdated).all()
    for batch in expired:
        batch.deleted_at = batch.expires_at
    _forget(session, [batch.id for batch in expired])
    session.flush()
    ended = [batch for batch in lost if batch.status in ENDED]
    return Swept(leases.to_ring(session, Batch), [prefix(batch.id) for batch in (*ended, *expired)])


def shard_count(batch: Batch) -> int:
    """How many shards it comes to."""
    return -(-batch.total // int(batch.options["shard_size"]))


def prefix(batch_id: str) -> str:
    """The storage prefix of everything that is stored for a batch."""
    return f"batches/{batch_id}"


def run_key(batch_id: str, fence: int) -> str:
    """The storage prefix of everything that the claim with this fence stores."""
    return f"{prefix(batch_id)}/{fence}"


def shard_key(batch: Batch, index: int) -> str:
    """Where the present claim stores a shard."""
    extension = CONTAINERS[batch.options["container"]].extension
    return f"{run_key(batch.id, batch.fence)}/shards/{index:05d}.{extension}"


def _present(batch: Batch | None, batch_id: str) -> Batch:
    if batch is None:
        raise NotFound(f"There is no batch {batch_id[:100]!r}: GET /v1/batches lists those that there are.")
    if batch.deleted_at is not None:
        expired = batch.expires_at is not None and batch.deleted_at >= batch.expires_at
        raise Gone(f"Batch {batch_id} {'has expired: POST /v1/batches makes it again' if expired else 'was deleted'}.")
    return batch


def _locked(session: Session, batch_id: str) -> Batch:
    """The batch as it stands, held against other writers until the transaction ends."""
    return _present(session.get(Batch, batch_id, with_for_update=True, populate_existing=True), batch_id)


def _made(session: Session, batch_id: str) -> int:
    made = select(func.count()).select_from(BatchShard).where(BatchShard.batch_id == batch_id)
    return session.scalar(made) or 0


def _lose(session: Session, batch: Batch, code: str, message: str) -> None:
    to = leases.after_loss(session, batch)
    if to == "failed":
        detail = f"{batch.attempt} runs in a row ended before they made a shard. The last: {message}"
        batch.error = {"code": code, "message": detail}
    if to in ENDED:
        _end(session, batch, to)
    else:
        leases.free(batch)
        batch.status = to


def _end(session: Session, batch: Batch, status: str) -> None:
    leases.free(batch)
    batch.status = status
    batch.desired = "cancel" if status == "cancelled" else "run"
    batch.finished_at = clock(session)
    batch.expires_at = batch.finished_at + settings_of(session).batch_seconds
    if status != "succeeded":
        _forget(session, [batch.id])


def _forget(session: Session, batch_ids: list[str]) -> None:
    """Their shards, whose objects are then deleted."""
    session.flush()
    if batch_ids:
        doomed = delete_rows(BatchShard).where(BatchShard.batch_id.in_(batch_ids))
        session.execute(doomed, execution_options={"synchronize_session": False})
