"""What a reference means, and what models there are."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Gone, InvalidState, NotFound
from app.names import ID_PREFIXES
from app.paging import DEFAULT_LIMIT, MAX_LIMIT, decode_cursor, encode_cursor
from app.tables import ENDED, Checkpoint, Dataset, Document, Job, ModelAlias, ModelPin, ModelVersion

LIVE = ModelVersion.deleted_at.is_(None)


@dataclass(frozen=True)
class Resolved:
    """The one snapshot that a reference means now.

    `label` is its lasting name (`digits:3` or a checkpoint's id); `pinned` says that `ref` can never mean another.
    """

    ref: str
    label: str
    sha256: str
    snapshot_key: str
    info: Document
    pinned: bool
    examples_seen: int
    kid: float | None
    evaluation: Document | None = None


@dataclass(frozen=True)
class Model:
    """A name, its living versions (newest first), its aliases and those references to it that are pinned."""

    name: str
    versions: Sequence[ModelVersion]
    aliases: dict[str, int]
    pins: Sequence[str]


def resolve(session: Session, ref: str) -> Resolved:
    """The snapshot that `ref` means now. Raises NotFound, Gone (deleted) and InvalidState (a job without a snapshot yet)."""
    if ref.startswith(("ckpt_", "job_")):
        checkpoint = get_checkpoint(session, ref) if ref.startswith("ckpt_") else _newest_checkpoint(session, ref)
        job = session.get_one(Job, checkpoint.job_id)
        info = describe(job, session.get_one(Dataset, job.dataset_id))
        return _resolved(ref, checkpoint, label=checkpoint.id, info=info, pinned=ref == checkpoint.id)
    version = _version(session, ref)
    return _resolved(ref, version, label=f"{version.name}:{version.version}", info=version.info, pinned=":" in ref)


def _resolved(ref: str, row: Checkpoint | ModelVersion, *, label: str, info: Document, pinned: bool) -> Resolved:
    return Resolved(
        ref=ref,
        label=label,
        sha256=row.sha256,
        snapshot_key=row.snapshot_key,
        info=info,
        pinned=pinned,
        examples_seen=row.examples_seen,
        kid=row.kid,
        evaluation=row.evaluation,
    )


def parse(ref: str) -> tuple[str, int | None, str | None]:
    """The name, version and alias in a reference to a published model; at most one of the last two is given.

    Raises NotFound for what can be no such reference.
    """
    match = re.fullmatch(r"([^:@]+)(?::([1-9][0-9]{0,17})|@([^:@]+))?", ref)
    if match is None:
        raise NotFound(
            f"{ref!r} names no model: give its name, name:3, name@alias, or the id of a checkpoint or a job."
        )
    name, version, alias = match.groups()
    return name, int(version) if version else None, alias


def _version(session: Session, ref: str) -> ModelVersion:
    name, number, alias = parse(ref)
    if alias is not None:
        row = session.get(ModelAlias, (name, alias))
        if row is None:
            get_model(session, name)
            raise NotFound(f"Model {name!r} has no alias {alias!r}: GET /v1/models/{name} shows those that it has.")
        number = row.version
    if number is not None:
        return get_version(session, name, number)
    versions = select(ModelVersion).where(ModelVersion.name == name, LIVE)
    newest = session.scalar(versions.order_by(ModelVersion.version.desc()).limit(1))
    return newest or get_model(session, name).versions[0]  # which says why there is none


def _newest_checkpoint(session: Session, job_id: str) -> Checkpoint:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}: GET /v1/jobs lists those that there are.")
    checkpoint = session.scalar(
        select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.examples_seen.desc()).limit(1)
    )
    if checkpoint is None:
        detail = f"Job {job.id} is {job.status} and has made no snapshot"
        if job.status not in ENDED:
            every = job.config["schedule"]["checkpoint"]
            first = f"after {every} examples" if every else "with its first checkpoint"
            raise InvalidState(
                f"{detail} yet: the first comes {first}; GET /v1/jobs/{job.id} shows how far it is.", job.status
            )
        raise InvalidState(f"{detail}: POST /v1/jobs/{job.id}/retry runs it again.", job.status)
    return checkpoint


def get_checkpoint(session: Session, checkpoint_id: str) -> Checkpoint:
    """Raises NotFound."""
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None:
        raise NotFound(f"There is no checkpoint {checkpoint_id!r}: GET /v1/jobs/{{id}}/checkpoints lists a job's.")
    return checkpoint


def describe(job: Job, dataset: Dataset) -> Document:
    """What a job's generators make: the part of a version that outlives the job and the data set."""
    network = job.config["network"]
    classes = [entry["name"] for entry in dataset.classes or []]
    return {
        "family": network["family"],
        "network": network,
        "height": dataset.height,
        "width": dataset.width,
        "channels": dataset.channels,
        "classes": classes if network["conditional"] else [],
        "z_dim": network["z_dim"],
        "conditional": network["conditional"],
        "dataset": {"id": dataset.id, "name": dataset.name, "sha256": dataset.sha256},
    }


def get_version(session: Session, name: str, number: int) -> ModelVersion:
    """One version of a model. Raises NotFound, and Gone for a deleted one."""
    return living(session, session.get(ModelVersion, (name, number)), name, number)


def living(session: Session, version: ModelVersion | None, name: str, number: int) -> ModelVersion:
    """What was found as `name:number`. Raises NotFound, and Gone for a deleted one."""
    if version is None:
        if not _ever_published(session, name):
            raise _unpublished(session, name)
        raise NotFound(f"There is no model version {name}:{number}: GET /v1/models lists those that there are.")
    if version.deleted_at is not None:
        raise Gone(f"Model version {name}:{number} was deleted.")
    return version


def hold(session: Session, label: str) -> None:
    """Hold a version (`name:3`) or a checkpoint against deletion until the transaction ends. Raises NotFound and Gone."""
    if label.startswith(ID_PREFIXES):
        job_id = get_checkpoint(session, label).job_id  # with which it goes
        if session.get(Job, job_id, with_for_update={"read": True}, populate_existing=True) is None:
            raise NotFound(f"Checkpoint {label} was deleted with its job.")
        return
    name, number, _ = parse(label)
    assert number is not None, "a label names one version for ever"
    living(session, session.get(ModelVersion, (name, number), with_for_update={"read": True}), name, number)


def get_model(session: Session, name: str) -> Model:
    """A model with its living versions. Raises NotFound, and Gone when all its versions are deleted."""
    models = _models(session, [name])
    if models:
        return models[0]
    if _ever_published(session, name):
        raise Gone(f"Every version of model {name!r} was deleted.")
    raise _unpublished(session, name)


def _ever_published(session: Session, name: str) -> bool:
    return session.scalar(select(ModelVersion.name).where(ModelVersion.name == name).limit(1)) is not None


def _unpublished(session: Session, name: str) -> NotFound:
    """For a name that no version ever had: what to do depends on whether a job is to make the first."""
    making = select(Job).where(Job.model_name == name, Job.status.not_in(ENDED)).order_by(Job.created_at).limit(1)
    if (job := session.scalar(making)) is None:
        return NotFound(f"There is no model {name!r}: GET /v1/models lists those that there are.")
    return NotFound(
        f"There is no model {name!r} yet: {job.id}, which is {job.status}, is to make it; until then use that id as the reference."
    )


def list_models(
    session: Session,
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    among: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Sequence[Model], str | None]:
    """A page of models by name, and the cursor of the next page. Raises Invalid for a malformed cursor.

    `among` and `without` are SHA-256s of weights: of the models that have a version with one of those, or with none of these.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(ModelVersion.name).where(LIVE).distinct()
    if among is not None:
        query = query.where(ModelVersion.sha256.in_(among))
    if without:
        query = query.where(
            ModelVersion.name.not_in(select(ModelVersion.name).where(LIVE, ModelVersion.sha256.in_(without)))
        )
    if cursor is not None:
        query = query.where(ModelVersion.name > decode_cursor(cursor, str)[0])
    found = session.scalars(query.order_by(ModelVersion.name).limit(limit + 1)).all()
    page = found[:limit]
    return _models(session, page), encode_cursor(page[-1]) if len(found) > limit else None


def _models(session: Session, wanted: Sequence[str]) -> list[Model]:
    """The models among `wanted` that have living versions, by name."""
    versions = session.scalars(
        select(ModelVersion)
        .where(ModelVersion.name.in_(wanted), LIVE)
        .order_by(ModelVersion.name, ModelVersion.version.desc())
    )
    aliases: dict[str, dict[str, int]] = defaultdict(dict)
    for row in session.scalars(select(ModelAlias).where(ModelAlias.name.in_(wanted)).order_by(ModelAlias.alias)):
        aliases[row.name][row.alias] = row.version
    pins: dict[str, list[str]] = defaultdict(list)
    for ref in session.scalars(select(ModelPin.ref).order_by(ModelPin.ref)):
        pins[re.split("[:@]", ref)[0]].append(ref)
    return [
        Model(name, list(rows), aliases[name], pins[name]) for name, rows in groupby(versions, key=attrgetter("name"))
    ]
