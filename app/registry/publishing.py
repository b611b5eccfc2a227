"""A checkpoint's snapshot becomes the next version of a model."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import names
from app.db import clock
from app.errors import Conflict, NotFound
from app.registry.references import describe, get_checkpoint
from app.tables import Checkpoint, Dataset, Job, ModelVersion

PUBLISH_ATTEMPTS = 100  # one is lost to each transaction that publishes to the same name at the same time


def publish(session: Session, *, name: str, checkpoint: Checkpoint, job: Job) -> ModelVersion:
    """Give a checkpoint's snapshot the next version number of the model `name`; a number is never given twice."""
    info = describe(job, session.get_one(Dataset, job.dataset_id))
    for _ in range(PUBLISH_ATTEMPTS):
        newest = session.scalar(select(func.max(ModelVersion.version)).where(ModelVersion.name == name))
        version = ModelVersion(
            name=name,
            version=(newest or 0) + 1,
            snapshot_key=checkpoint.snapshot_key,
            sha256=checkpoint.sha256,
            size=checkpoint.size,
            job_id=job.id,
            checkpoint_id=checkpoint.id,
            examples_seen=checkpoint.examples_seen,
            kid=checkpoint.kid,
            evaluation=checkpoint.evaluation,
            info=info,
            created_at=clock(session),
        )
        try:
            with session.begin_nested():
                session.add(version)
        except IntegrityError:  # another transaction has just taken this number
            continue
        return version
    raise Conflict(f"Too many publish to {name!r} at once: try again.")


def publish_checkpoint(session: Session, checkpoint_id: str, name: str | None = None) -> ModelVersion:
    """Publish a checkpoint's snapshot, by default under its job's model name. Raises NotFound, Invalid (malformed name)."""
    if name is not None:
        names.validate(name, "#/model")
    checkpoint = get_checkpoint(session, checkpoint_id)
    # The lock holds off a deletion of the job, which would take the snapshot's objects along.
    job = session.get(Job, checkpoint.job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound(f"Checkpoint {checkpoint_id} was deleted with its job.")
    return publish(session, name=name or job.model_name, checkpoint=checkpoint, job=job)
