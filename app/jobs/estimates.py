"""How long a planned job would train, by what jobs like it took."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.plans import Plan
from app.tables import Dataset, Job

LOOKED_AT = 100  # of the newest jobs on images of the same shape
DECIDES_SPEED = ("network", "penalties", "batch_size", "precision", "threads")  # parts of a config


def estimated_seconds(session: Session, plan: Plan) -> float | None:
    """A budget in seconds is its own estimate; any other goes by the newest job of the same networks, batch, precision and
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
