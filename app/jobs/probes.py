"""Probes: what a planned job would need and how fast it would go, measured by a worker while somebody who asked for a dry run waits.

    ask -> queued -> (claim) running -> (finish) succeeded | (fail) failed

What was measured is kept for a day under the digest of all that it depends on. A probe that is lost is not tried again by
itself: whoever still wants to know asks again. One that was too slow to measure is not tried again for a while.
"""

import hashlib
import json

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app import leases
from app.db import clock, now
from app.jobs.plans import Plan
from app.tables import Document, Probe
from models.config import DataSpec

KEPT_SECONDS = 86_400.0
TOO_SLOW = "too_slow"  # an error's code
TOO_SLOW_SECONDS = 600.0  # for which that is kept: each try takes a worker a minute
MOST_WAITING = 20  # each takes a worker some seconds
# The parts of a config that decide speed and memory, and whether a worker can train it at all.
DECISIVE = (
    *("network", "loss", "penalties", "augment", "optimizer", "ema"),
    *("batch_size", "micro_batch", "precision", "threads", "processes"),
)
SHAPE = {"height", "width", "channels", "classes"}


def key(plan: Plan) -> str:
    """Equal for plans that need and do the same, a few examples after the other: 40 hex digits."""
    decisive = {part: plan.config.get(part) for part in DECISIVE}
    evaluation = plan.config["evaluation"]
    decisive["inception"] = evaluation["samples"] > 0 and evaluation["features"] == "inception"
    shape = _nameless(plan.data).model_dump(mode="json", include=SHAPE)
    return hashlib.sha256(json.dumps([decisive, shape], sort_keys=True).encode()).hexdigest()[:40]


def find(session: Session, plan: Plan) -> Probe | None:
    """What is known, or being found out, of such a plan."""
    return session.get(Probe, key(plan))


def status(session: Session, probe_id: str) -> str | None:
    """Of the probe of a plan with this `key`. Cheap, for those who ask again and again."""
    return session.scalar(select(Probe.status).where(Probe.id == probe_id))


def waiting(session: Session) -> int:
    """How many probes are queued."""
    return leases.waiting(session, Probe)


def ask(session: Session, plan: Plan) -> Probe | None:
    """The plan's probe, queued unless it is under way, done or too slow, for the caller to ring for; None while too many wait."""
    probe = session.get(Probe, key(plan), with_for_update=True)
    if probe is not None and (probe.status != "failed" or _is_too_slow(session, probe)):
        return probe
    if waiting(session) >= MOST_WAITING:
        return None
    time = clock(session)
    if probe is None:
        probe = Probe(id=key(plan), fence=0)
        session.add(probe)
    probe.status, probe.queued_at, probe.error, probe.finished_at = "queued", time, None, None
    probe.request = {"config": plan.config, "data": _nameless(plan.data).model_dump(mode="json")}
    session.flush()
    return probe


def _nameless(data: DataSpec) -> DataSpec:
    """The data with numbers for the names of its classes: how many there are is all that decides, and names are somebody's own."""
    return data.model_copy(update={"classes": tuple(map(str, range(len(data.classes))))})


def _is_too_slow(session: Session, probe: Probe) -> bool:
    if probe.error is None or probe.finished_at is None or probe.error["code"] != TOO_SLOW:
        return False
    return clock(session) < probe.finished_at + TOO_SLOW_SECONDS


def claim(session: Session, worker: str) -> Probe | None:
    """The next probe, leased to `worker`; None when none waits."""
    return leases.claim(session, Probe, worker)


def renew(session: Session, probe_id: str, fence: int) -> None:
    """Prolong the lease; raises LeaseLost."""
    leases.renew(session, Probe, probe_id, fence)


def finish(session: Session, probe_id: str, fence: int, result: Document) -> None:
    """What was measured. Raises LeaseLost."""
    leases.finish(session, Probe, probe_id, fence, status="succeeded", result=result, finished_at=now())


def fail(session: Session, probe_id: str, fence: int, code: str, message: str) -> None:
    """Why nothing could be measured. Raises LeaseLost."""
    error = {"code": code, "message": message}
    leases.finish(session, Probe, probe_id, fence, status="failed", error=error, finished_at=now())


def release(session: Session, probe_id: str, fence: int, _reason: str) -> None:
    """Give the probe back to the queue, for another worker. Raises LeaseLost."""
    leases.finish(session, Probe, probe_id, fence, status="queued")


def sweep(session: Session) -> None:
    """End the probes of lost workers, and forget what is out of date. May run anywhere, any number of times."""
    for probe in leases.expire(session, Probe):
        leases.free(probe)
        probe.status, probe.finished_at = "failed", clock(session)
        probe.error = {"code": "worker_lost", "message": "The worker that measured stopped answering."}
    session.flush()
    since = func.coalesce(Probe.finished_at, Probe.queued_at)
    old = select(Probe.id).where(Probe.status != "running", since < now() - KEPT_SECONDS)
    session.execute(delete(Probe).where(Probe.id.in_(old)), execution_options={"synchronize_session": False})
