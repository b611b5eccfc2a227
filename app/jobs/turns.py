"""Who gives way to whom: when jobs wait, which of the running ones should checkpoint and go back to the queue.

The choice is a function of the rows alone, so every supervisor that asks gets an answer that agrees with the others', and each
waiting job displaces exactly one running job.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock, settings_of
from app.tables import Job


class Running(NamedTuple):
    """A running job that nobody has asked to stop; `seconds` it has had since it was claimed."""

    id: str
    priority: int
    seconds: float


def must_yield(session: Session, job: Job) -> bool:
    """Whether this running job is one of those that should give way now."""
    in_order = (Job.priority.desc(), Job.queued_at, Job.id)
    waiting = session.scalars(select(Job.priority).where(Job.status == "queued").order_by(*in_order).limit(1000)).all()
    if not waiting:
        return False
    time = clock(session)
    running = session.execute(
        select(Job.id, Job.priority, Job.claimed_at, Job.desired).where(Job.status == "running")
    ).all()
    leaving = sum(row.desired != "run" for row in running)  # their places go to the first who wait
    staying = [
        Running(row.id, row.priority, time - (row.claimed_at or time)) for row in running if row.desired == "run"
    ]
    return job.id in yielding(waiting[leaving:], staying, settings_of(session).time_slice_seconds)


def yielding(waiting: Sequence[int], running: Sequence[Running], time_slice: float) -> set[str]:
    """The ids of the running jobs that give way to jobs of the priorities `waiting` (highest first): at most one for each.

    A waiting job of strictly higher priority displaces at once the one of lowest priority that was claimed last; one of equal
    priority the one that has had its slice and run longest.
    """
    victims = sorted(running, key=lambda job: (job.priority, job.seconds, job.id))
    pairs = zip(waiting, victims, strict=False)
    preempted = [victim.id for priority, victim in pairs if priority > victim.priority]
    left = list(waiting[len(preempted) :])
    chosen = set(preempted)
    for job in sorted(victims[len(preempted) :], key=lambda job: (-job.seconds, job.id)):
        if job.seconds >= time_slice and job.priority in left:
            left.remove(job.priority)
            chosen.add(job.id)
    return chosen
