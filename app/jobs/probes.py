"""Probes: what a planned job would need and how fast it would go, measured by a worker while somebody who asked for a dry run waits.

    ask -> queued -> (claim) running -> (finish) succeeded | (fail) failed

What was measured is kept for a day under the digest of all that it depends on. A probe that is lost is not tried again by
itself: whoever still wants to know asks again.
"""

import hashlib
import json

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app import leases
from app.db import clock, now
from app.jobs.plans import Plan
from app.tables import Document, Probe

KEPT_SECONDS = 86_400.0
MOST_WAITING = 20  # each takes a worker some seconds
# The parts of a config that decide speed and memory.
DECISIVE = (
    *("network", "loss", "penalties", "augment", "optimizer", "ema"),
    *("batch_size", "micro_batch", "precision", "threads"),
)
SHAPE = {"height", "width", "channels", "classes"}


def key(plan: Plan) -> str:
    """Equal for plans that need and do the same, a few examples after the other: 40 hex digits."""
    decisive = {part: plan.config.get(part) for part in DECISIVE}
    shape = plan.data.model_dump(mode="json", include=SHAPE)
    return hashlib.sha256(json.dumps([decisive, shape], sort_keys=True).encode()).hexdigest()[:40]


def find(session: Session, plan: Plan) -> Probe | None:
    """What is known, or being found out, of such a plan."""
    return session.get(Probe, key(plan))


def ask(session: Session, plan: Plan) -> Probe | None:
    """The plan's probe, queued unless it is under way or done, for the caller to ring for; None while too many wait."""
    probe = session.get(Probe, key(plan), with_for_update=True)
    if probe is not None and probe.status != "failed":
        return probe
    if leases.waiting(session, Probe) >= MOST_WAITING:
        return None
    time = clock(session)
    if probe is None:
        probe = Probe(id=key(plan), fence=0)
        session.add(probe)
    probe.status, probe.queued_at, probe.error, probe.finished_at = "queued", time, None, None
    probe.request = {"config": plan.config, "data": plan.data.model_dump(mode="json")}
    session.flush()
    return probe


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
