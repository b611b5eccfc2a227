"""What happens to versions once they are published: aliases point at them, and they are deleted."""

from collections.abc import Sequence

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from app import names
from app.db import clock
from app.errors import FieldError, InUse, Invalid, NotFound
from app.registry.references import LIVE, get_model, living, parse
from app.tables import Checkpoint, ModelAlias, ModelVersion
from models.manifest import MANIFEST, WEIGHTS

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


def delete(session: Session, ref: str) -> list[str]:
    """Delete a version (`name:3`) or all of them (`name`); gives the object keys to delete once this has committed.

    Raises NotFound, Gone, Invalid (an alias or an id), and InUse while an alias points at one.
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
    moment = clock(session)
    for version in doomed:
        version.deleted_at = moment
    session.flush()
    snapshots = {version.snapshot_key for version in doomed}
    kept = union(
        select(Checkpoint.snapshot_key).where(Checkpoint.snapshot_key.in_(snapshots)),
        select(ModelVersion.snapshot_key).where(ModelVersion.snapshot_key.in_(snapshots), LIVE),
    )
    return [key for snapshot in sorted(snapshots - set(session.scalars(kept))) for key in snapshot_objects(snapshot)]


def _held(session: Session, name: str, number: int) -> ModelVersion:
    """A living version, locked until the transaction ends: who points an alias at it and who deletes it take turns."""
    return living(session.get(ModelVersion, (name, number), with_for_update=True), name, number)


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
    """The object keys of a snapshot."""
    return [f"{snapshot_key}/{name}" for name in SNAPSHOT_FILES]
