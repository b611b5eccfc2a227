"""Leases over any `Leased` table: who may work on a row, until when, and what becomes of a row whose worker is lost.

A claim raises the row's fence; whoever writes for that claim names the fence and is refused with LeaseLost once it is no longer
the row's. All times are the database's. Nothing here knows what a job or a data set is: their modules decide which status
follows, and call these functions inside a writing transaction.
"""

from typing import Any, TypeVar

from sqlalchemy import Select, UpdateBase, func, or_, select, update
from sqlalchemy.orm import Session

from app.db import now, settings_of
from app.errors import LeaseLost
from app.tables import Leased

Row = TypeVar("Row", bound=Leased)

_FREE: dict[str, Any] = {"worker": None, "lease_until": None, "rung_at": None}  # of a row that nobody holds

_FRESH = {"populate_existing": True, "synchronize_session": False}  # what RETURNING says is how the row stands


def claim(session: Session, table: type[Row], worker: str) -> Row | None:
    """Take the queued row of the highest priority that waits longest, or None: running, under a new fence and a fresh lease.

    Safe beside any number of others: each row goes to one of them.
    """
    best = (
        select(table.id)
        .where(table.status == "queued")
        .order_by(table.priority.desc(), table.queued_at, table.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # PostgreSQL: pass over rows that others are taking; SQLite has one writer
    )
    claimed: Row | None = _returned(
        session,
        update(table)
        .where(table.id == best.scalar_subquery(), table.status == "queued")
        .values(
            status="running",
            desired="run",
            fence=table.fence + 1,
            worker=worker,
            claimed_at=now(),
            lease_until=now() + settings_of(session).lease_seconds,
        )
        .returning(table),
    )
    return claimed


def renew(session: Session, table: type[Row], row_id: str, fence: int) -> Row:
    """Extend the lease of the claim with this fence. Raises LeaseLost."""
    return _held(session, table, row_id, fence, lease_until=now() + settings_of(session).lease_seconds)


def held(session: Session, table: type[Row], row_id: str, fence: int) -> Row:
    """The row, locked for the rest of the transaction, if this fence still holds it. Raises LeaseLost."""
    return _held(session, table, row_id, fence, lease_until=table.lease_until)


def finish(session: Session, table: type[Row], row_id: str, fence: int, *, status: str, **columns: Any) -> Row:
    """Let go of the row, with its new status and whatever else is to be written. Raises LeaseLost."""
    return _held(session, table, row_id, fence, status=status, **_FREE, **columns)


def free(row: Leased) -> None:
    """Let go of a row that this transaction has locked."""
    for column, value in _FREE.items():
        setattr(row, column, value)


def expire(session: Session, table: type[Row]) -> list[Row]:
    """Take the rows of lost workers away from them: the lease is over, the fence and the count of attempts are one higher.

    The rows come back locked and still `running`: the caller gives each its next status in the same transaction.
    """
    lapsed = select(table.id).where(table.status == "running", table.lease_until < now())
    taken = update(table).where(table.id.in_(_unlocked(lapsed, table)), table.status == "running")
    values = {"fence": table.fence + 1, "attempt": table.attempt + 1, **_FREE}
    return list(session.scalars(taken.values(values).returning(table), execution_options=_FRESH))


def after_loss(session: Session, row: Leased) -> str:
    """The status of a row whose worker was lost: what its user wished, or failed when too many runs brought no progress."""
    if row.desired != "run":
        return {"pause": "paused", "cancel": "cancelled"}[row.desired]
    return "failed" if row.attempt >= settings_of(session).max_attempts else "queued"


def to_ring(session: Session, table: type[Row]) -> int:
    """How many queued rows to ring the bell for now. Each counts at most once in `ring_seconds`, whoever asks."""
    due = or_(table.rung_at.is_(None), table.rung_at < now() - settings_of(session).ring_seconds)
    silent = select(table.id).where(table.status == "queued", due)
    rung = update(table).where(table.id.in_(_unlocked(silent, table)), table.status == "queued", due)
    return len(session.scalars(rung.values(rung_at=now()).returning(table.id)).all())


def waiting(session: Session, table: type[Row]) -> int:
    """How many rows are queued."""
    return session.scalar(select(func.count()).select_from(table).where(table.status == "queued")) or 0


def _unlocked(ids: Select[str], table: type[Row]) -> Select[str]:
    """PostgreSQL: in one order and past rows that another sweep has locked, so that sweeps never wait for one another."""
    return ids.order_by(table.id).with_for_update(skip_locked=True)


def _held(session: Session, table: type[Row], row_id: str, fence: int, **columns: Any) -> Row:
    mine = (table.id == row_id, table.fence == fence, table.status == "running")
    row: Row | None = _returned(session, update(table).where(*mine).values(**columns).returning(table))
    if row is None:
        raise LeaseLost(f"{row_id} is no longer held under fence {fence}: stop, and write nothing more.")
    return row


def _returned(session: Session, statement: UpdateBase) -> Any:
    """The one row that the statement changed, as it now stands, or None."""
    return session.scalars(statement, execution_options=_FRESH).one_or_none()
