"""What a planned job would need: measured by a probe, or else by what jobs like it took."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.plans import Plan
from app.tables import Dataset, Document, Job, Probe

LOOKED_AT = 100  # of the newest jobs on images of the same shape
# Parts of a config.
DECIDES_SPEED = (
    *("network", "loss", "penalties", "augment", "batch_size", "micro_batch"),
    *("precision", "threads", "processes", "evaluation"),
)


@dataclass(frozen=True)
class Estimate:
    """Nulls where nothing is known, and then a `note` says why. `measured` says where and when:
    {"worker", "fingerprint", "at"}.
    """

    parameters: Document | None = None
    memory_bytes: int | None = None
    examples_per_second: float | None = None
    seconds: float | None = None
    measured: Document | None = None
    note: str | None = None


def estimate(session: Session, plan: Plan, probe: Probe | None, note: str | None) -> Estimate:
    """What the plan's probe has measured so far, if there is one; `note` says why there is none."""
    seconds = estimated_seconds(session, plan)
    if probe is None or probe.result is None or probe.status != "succeeded":
        if probe is not None and probe.error is not None:
            note = probe.error["message"]
        return Estimate(seconds=seconds, note=note)
    result, speed = probe.result, probe.result["examples_per_second"]
    if plan.examples_total is not None and speed:
        seconds = plan.examples_total / speed
    return Estimate(
        parameters=result["parameters"],
        memory_bytes=result["memory_bytes"],
        examples_per_second=speed,
        seconds=seconds,
        measured={"worker": result["worker"], "fingerprint": result["fingerprint"], "at": probe.finished_at},
        note=" ".join(filter(None, (result.get("note"), _of_one_process(plan.config["processes"])))) or None,
    )


def _of_one_process(processes: int) -> str | None:
    """What is to be said to who wants several: a probe is one process."""
    if processes == 1:
        return None
    return (
        f"Measured in one process that has the whole batch: the {processes} that share it may go faster, and each may need less"
        " memory."
    )


def estimated_seconds(session: Session, plan: Plan) -> float | None:
    """A budget in seconds is its own estimate; any other goes by the newest job of the same networks, game, batch, precision and
    threads on images of the same shape. None when there was none that got anywhere.
    """
    if plan.examples_total is None:
        return float(plan.config["budget"]["seconds"])
    shape = (plan.dataset.height, plan.dataset.width, plan.dataset.channels)
    alike = (
        select(Job.config, Job.progress)
        .join(Dataset, Dataset.id == Job.dataset_id)
        .where(Dataset.height == shape[0], Dataset.width == shape[1], Dataset.channels == shape[2])
        .order_by(Job.created_at.desc())
        .limit(LOOKED_AT)
    )
    for config, progress in session.execute(alike):
        seen, seconds = progress.get("examples_seen"), progress.get("elapsed_seconds")
        if seen and seconds and all(config.get(part) == plan.config[part] for part in DECIDES_SPEED):
            return float(plan.examples_total * seconds / seen)
    return None
