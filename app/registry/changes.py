"""What happens to versions once they are published: aliases point at them, and they are deleted."""

from collections.abc import Sequence

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from app import names
from app.db import clock
from app.errors import FieldError, InUse, Invalid, NotFound
from app.registry.pins import forget
from app.registry.references import LIVE, get_model, living, parse
from app.tables import ENDED, Batch, Checkpoint, Job, ModelAlias, ModelVersion
from models.manifest import MANIFEST, ONNX, WEIGHTS

SNAPSHOT_FILES = (WEIGHTS, MANIFEST)
RESERVED_ALIAS = "latest"  # what a bare name means already


def put_alias(session: Session, name: str, alias: str, version: int) -> ModelAlias:
    """Point `name@alias` at a version, from this transaction's end. Raises Invalid, NotFound and Gone."""
    names.validate(alias, "#/alias")
    if alias == RESERVED_ALIAS:
        detail = f"{RESERVED_ALIAS!r} cannot be an alias: the bare name {name!r} means the newest version already."
        raise Invalid(detail, errors=[FieldError("#/alias", "reserved")])
    _held(session, name, version)
    row = session.merge(ModelAlias(name=name, alias=alias, version=version, updated_at=clock(session)))
    session.flush()
    return row


def delete_alias(session: Session, name: str, alias: str) -> None:
    """Remove `name@alias`; the version stays. Raises NotFound."""
    row = session.get(ModelAlias, (name, alias))
    if row is None:
        raise NotFound(f"Model {name!r} has no alias {alias!r}.")
    session.delete(row)
    forget(session, [f"{name}@{alias}"])


def delete(session: Session, ref: str) -> list[str]:
    """Delete a version (`name:3`) or all of them (`name`); gives the object keys to delete once this has committed.

    Raises NotFound, Gone, Invalid (an alias or an id), and InUse while an alias points at one, an unfinished job begins with it
    or an unfinished batch is made from it.
    """
    name, number, alias = parse(ref)
    if alias is not None or ref.startswith(names.ID_PREFIXES):
        raise Invalid(f"Only a version (name:3) or a whole model (name) can be deleted, which {ref!r} is not.")
    doomed = _all_held(session, name) if number is None else [_held(session, name, number)]
    numbers = [version.version for version in doomed]
    holding = session.scalars(
        select(ModelAlias.alias).where(ModelAlias.name == name, ModelAlias.version.in_(numbers))
    ).all()
    if holding:
        raise InUse(
            f"{', '.join(f'{name}@{alias}' for alias in holding)} points at it: move or delete the alias first."
        )
    labels = [f"{name}:{version}" for version in numbers]
    if needing := beginning_with(session, labels):
        raise InUse(f"{', '.join(needing)} begins with it: cancel what needs it, or wait until it ends.")
    check_no_batch(session, labels)
    moment = clock(session)
    for version in doomed:
        version.deleted_at = moment
    forget(session, labels if number is not None else [*labels, name])
    session.flush()
    snapshots = {version.snapshot_key for version in doomed}
    kept = union(
        select(Checkpoint.snapshot_key).where(Checkpoint.snapshot_key.in_(snapshots)),
        select(ModelVersion.snapshot_key).where(ModelVersion.snapshot_key.in_(snapshots), LIVE),
    )
    return [key for snapshot in sorted(snapshots - set(session.scalars(kept))) for key in snapshot_objects(snapshot)]


def beginning_with(session: Session, labels: Sequence[str]) -> Sequence[str]:
    """Some of the unfinished jobs that begin with one of these versions (`name:3`) or checkpoints."""
    needing = select(Job.id).where(Job.initial["ref"].as_string().in_(labels), Job.status.not_in(ENDED))
    return session.scalars(needing.order_by(Job.created_at).limit(3)).all()


def check_no_batch(session: Session, labels: Sequence[str]) -> None:
    """Raises InUse while an unfinished batch is made from one of these versions (`name:3`) or checkpoints."""
    making = select(Batch.id).where(Batch.model.in_(labels), Batch.status.not_in(ENDED))
    if batches := session.scalars(making.order_by(Batch.created_at).limit(3)).all():
        raise InUse(f"{', '.join(batches)} is made from it: cancel what needs it, or wait until it ends.")


def _held(session: Session, name: str, number: int) -> ModelVersion:
    """A living version, locked until the transaction ends: who points an alias at it and who deletes it take turns."""
    return living(session, session.get(ModelVersion, (name, number), with_for_update=True), name, number)


def _all_held(session: Session, name: str) -> Sequence[ModelVersion]:
    """Every living version of a model, locked in the same way."""
    versions = select(ModelVersion).where(ModelVersion.name == name, LIVE).order_by(ModelVersion.version)
    held = session.scalars(versions.with_for_update()).all()
    if not held:
        get_model(session, name)  # says why there is none
    return held


def published(session: Session, job_id: str) -> Sequence[str]:
    """The snapshots of a job that living versions use."""
    return session.scalars(select(ModelVersion.snapshot_key).where(ModelVersion.job_id == job_id, LIVE)).all()


def snapshot_objects(snapshot_key: str) -> list[str]:
    """The object keys of a snapshot, and of what may have been exported from it."""
    return [f"{snapshot_key}/{name}" for name in (*SNAPSHOT_FILES, ONNX)]
