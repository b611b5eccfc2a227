"""Dry runs: what a job would be, with what a worker measures of it while the caller waits a little.

The wait holds neither a thread of the pool nor a connection of the database, but it looks every now and then: so only so many
wait at once.
"""

import asyncio
import time
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool

from app import jobs, workers
from app.db import Database
from app.errors import Conflict, Unavailable
from app.jobs import Plan, estimates, probes
from app.jobs.estimates import Estimate
from app.queue import Bell

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.2
MOST_WAITERS = 64  # in this process

NOBODY = "No worker is there to measure it."
MANY = "Many plans wait to be measured: ask again in a moment."
CROWDED = "Many callers wait for what is being measured: ask again in a moment, for what is measured is kept."
NOT_YET = "No worker has come to measure it yet: ask again in a moment, for what is measured is kept."
NOT_DONE = "A worker is measuring it: ask again in a moment, for what is measured is kept."
BESIDE = "Plans that wait with it: {}. Each takes a worker some seconds, a minute at most."
UNDER_WAY: dict[str | None, str] = {"queued": NOT_YET, "running": NOT_DONE}

_places = BoundedSemaphore(MOST_WAITERS)


class Begun(NamedTuple):
    """A plan, whether it is being measured, and if not, and it has not been, why."""

    plan: Plan
    waiting: bool
    note: str | None = None


async def dry_run(database: Database, bell: Bell, asked: dict[str, Any]) -> tuple[Plan, Estimate]:
    """The plan of what was asked for, and what is known of it after `WAIT_SECONDS` or earlier. Raises as `jobs.plan` does.

    At once where `MOST_WAITERS` wait already.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    plan, waiting, note = await run_in_threadpool(_begin, database, bell, asked)
    if waiting:
        note = await _wait(database, plan, deadline)
    return plan, await run_in_threadpool(_estimate, database, plan, note)


async def _wait(database: Database, plan: Plan, deadline: float) -> str | None:
    """Until the plan has been measured, or the deadline. Why it has not been; None when its probe says so."""
    probe_id = await run_in_threadpool(probes.key, plan)
    if not _places.acquire(blocking=False):
        return CROWDED
    try:
        note = NOT_YET
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            status = await run_in_threadpool(_status, database, probe_id)
            if status not in UNDER_WAY:
                return None
            note = UNDER_WAY[status]
        return await run_in_threadpool(_not_yet, database) if note == NOT_YET else note
    finally:
        _places.release()


def _begin(database: Database, bell: Bell, asked: dict[str, Any]) -> Begun:
    with database.reading() as session:
        plan = jobs.plan(session, **asked, hardware=workers.hardware(session))
        known = probes.find(session, plan)
        if known is not None and known.status == "succeeded":
            return Begun(plan, waiting=False)
        if not workers.list_workers(session):
            return Begun(plan, waiting=False, note=NOBODY)
    try:
        with database.writing() as session:
            probe = probes.ask(session, plan)
    except Conflict:  # somebody asked for the same at the same time
        return Begun(plan, waiting=True)
    except Unavailable as error:  # the plan itself needs no writing
        return Begun(plan, waiting=False, note=error.detail)
    bell.ring("probe")  # also for those that wait, whose bell may have been lost
    if probe is None:
        return Begun(plan, waiting=False, note=MANY)
    return Begun(plan, waiting=True)


def _status(database: Database, probe_id: str) -> str | None:
    with database.reading() as session:
        return probes.status(session, probe_id)


def _not_yet(database: Database) -> str:
    with database.reading() as session:
        others = probes.waiting(session) - 1
    return f"{NOT_YET} {BESIDE.format(others)}" if others > 0 else NOT_YET


def _estimate(database: Database, plan: Plan, note: str | None) -> Estimate:
    with database.reading() as session:
        return estimates.estimate(session, plan, probes.find(session, plan), note)
