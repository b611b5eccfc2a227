"""The worker processes that say they live. The sweep forgets those that have long been silent."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.db import clock, now
from app.tables import Worker
from models.presets import UNKNOWN, Hardware

SILENT_SECONDS = 60.0  # and it is not listed any more


def beat(session: Session, *, worker: str, slots: int, busy: int, device: str, gpus: int, cores: int) -> None:
    """Say that `worker` (host:pid) lives, with so many training slots of which `busy` are in use, and what it trains on."""
    time = clock(session)
    values = {"slots": slots, "busy": busy, "device": device, "gpus": gpus, "cores": cores, "seen_at": time}
    known = session.scalar(update(Worker).where(Worker.id == worker).values(values).returning(Worker.id))
    if known is None:  # one process writes one row: there is nobody to race with
        session.add(Worker(id=worker, started_at=time, **values))


def leave(session: Session, worker: str) -> None:
    """Say that `worker` ends."""
    session.execute(delete(Worker).where(Worker.id == worker))


def list_workers(session: Session) -> Sequence[Worker]:
    """Those that were heard of within the last minute, oldest first."""
    heard = select(Worker).where(Worker.seen_at >= now() - SILENT_SECONDS)
    return session.scalars(heard.order_by(Worker.started_at, Worker.id)).all()


def hardware(session: Session) -> Hardware:
    """The best that a living worker has to train on; an ordinary CPU while there is none."""
    alive = list_workers(session)
    if not alive:
        return UNKNOWN
    gpus = any(worker.gpus for worker in alive)
    return Hardware("cuda" if gpus else "cpu", max(worker.cores or 1 for worker in alive))
