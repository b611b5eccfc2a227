"""References whose generators stay loaded in every process that serves samples, whatever else is asked for."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import clock
from app.errors import Invalid, NotFound
from app.registry.references import Resolved, hold, resolve
from app.tables import ModelPin

MOST = 1_000


def pin(session: Session, ref: str) -> Resolved:
    """Have what `ref` means, now and later, stay loaded. Raises what `resolve` raises, and Invalid when too many are pinned."""
    found = resolve(session, ref)
    hold(session, found.label)  # whoever deletes it afterwards finds the pin, and forgets it
    if len(pins(session)) >= MOST and session.get(ModelPin, ref) is None:
        raise Invalid(f"{MOST} references are pinned, which is the most: unpin one first.")
    session.merge(ModelPin(ref=ref, created_at=clock(session)))
    session.flush()
    return found


def unpin(session: Session, ref: str) -> None:
    """Let it go like any other. Raises NotFound."""
    row = session.get(ModelPin, ref)
    if row is None:
        pinned = ", ".join(pins(session)[:20])
        others = f"what is: {pinned}" if pinned else "nothing is pinned"
        raise NotFound(f"{ref!r} is not pinned; {others}.")
    session.delete(row)


def pins(session: Session) -> Sequence[str]:
    """The references, the longest pinned first."""
    return session.scalars(select(ModelPin.ref).order_by(ModelPin.created_at, ModelPin.ref)).all()


def is_pinned(session: Session, ref: str) -> bool:
    """Whether this very reference is."""
    return session.get(ModelPin, ref) is not None


def forget(session: Session, refs: Sequence[str]) -> None:
    """Unpin what was deleted."""
    session.execute(delete(ModelPin).where(ModelPin.ref.in_(refs)))
