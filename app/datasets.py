"""Data sets: register an upload or an import, have it prepared under a lease, look into it, delete it.

    register -> queued -> (claim) running -> (finish) succeeded | (fail) failed

A failed one keeps its reason and none of its objects: it is uploaded again.

Every function takes the session of a transaction and leaves committing to it. A deleted data set keeps its row, because the jobs
that learned from it still need its shape; its name is free again and its objects are gone.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import leases, names
from app.db import clock, now
from app.errors import Conflict, FieldError, Gone, InUse, Invalid, InvalidState, NotFound
from app.paging import DEFAULT_LIMIT, fetch_page
from app.storage import Storage
from app.tables import ENDED, Dataset, Document, Job, new_id
from models.config import DataSpec

BUILTINS = ("digits",)
LIVE = Dataset.deleted_at.is_(None)
NAME_ATTEMPTS = 100  # one is lost to each transaction that takes the same name at the same time
API_STATUS = {"queued": "preparing", "running": "preparing", "succeeded": "ready", "failed": "failed"}

Fit = Literal["crop", "pad", "stretch"]


@dataclass
class Upload:
    """An uploaded file that is stored under `key`, and whether a data set has taken it over."""

    dataset_id: str
    key: str
    filename: str
    size: int
    registered: bool = False


@contextmanager
def stored_upload(storage: Storage, *, path: Path, filename: str) -> Iterator[Upload]:
    """Store an uploaded file; it goes away again unless the block registers it, commits that and ends well."""
    dataset_id = new_id("ds")
    key = f"datasets/{dataset_id}/upload/{safe_filename(filename)}"
    with ExitStack() as undo:
        undo.callback(storage.delete, [key])
        storage.put_file(key, path)
        upload = Upload(dataset_id, key, filename, path.stat().st_size)
        yield upload
        if upload.registered:
            undo.pop_all()


def safe_filename(filename: str) -> str:
    """The last part of a client's path, with everything but letters, digits, `.`, `_` and `-` replaced."""
    last = re.split(r"[/\\]", filename)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._")[-100:].lstrip("._") or "upload"


def register_upload(
    session: Session, upload: Upload, *, name: str | None = None, resolution: int | None = None, fit: Fit = "crop"
) -> Dataset:
    """A queued data set of a stored upload, for the caller to ring for; `name` None takes the file's.

    Raises Invalid (malformed name), Conflict (name taken).
    """
    source = {"kind": "upload", "key": upload.key, "filename": upload.filename, "size": upload.size}
    options = {"resolution": resolution, "fit": fit}
    dataset = _register(session, upload.dataset_id, source, options, name=name, default_name=upload.filename)
    upload.registered = True
    return dataset


def register_builtin(session: Session, builtin: str, *, name: str | None = None) -> Dataset:
    """A queued data set of one that comes with Ganvil, for the caller to ring for.

    Raises Invalid (unknown builtin, malformed name), Conflict (name taken).
    """
    if builtin not in BUILTINS:
        detail = f"There is no built-in data set {builtin!r}; there is {', '.join(BUILTINS)}."
        raise Invalid(detail, errors=[FieldError("#/source/name", f"one of {', '.join(BUILTINS)}")])
    source = {"kind": "builtin", "name": builtin}
    options = {"resolution": None, "fit": "crop"}
    return _register(session, new_id("ds"), source, options, name=name, default_name=builtin)


def _register(
    session: Session, dataset_id: str, source: Document, options: Document, *, name: str | None, default_name: str
) -> Dataset:
    moment = clock(session)
    candidates = _free_names(session, default_name) if name is None else [names.validate(name, "#/name")]
    for candidate in candidates:
        dataset = Dataset(
            id=dataset_id,
            name=candidate,
            source=source,
            options=options,
            queued_at=moment,
            rung_at=moment,
            created_at=moment,
        )
        try:
            with session.begin_nested():
                session.add(dataset)
        except IntegrityError:  # taken; one of ours between the look and the leap
            continue
        return dataset
    detail = f"There is a data set named {candidate!r} already: choose another name, or delete that one first."
    raise Conflict(detail, errors=[FieldError("#/name", "taken")])


def _free_names(session: Session, filename: str) -> Iterator[str]:
    """Names that are free now, made of a file's: `cats`, `cats-2`, `cats-3` ..."""
    base = name_from(filename)
    taken = set(session.scalars(select(Dataset.name).where(Dataset.name.startswith(base, autoescape=True), LIVE)))
    numbered = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return itertools.islice((name for name in numbered if name not in taken), NAME_ATTEMPTS)


def name_from(filename: str) -> str:
    """A well-formed name made of a file's: `My cats.tar.gz` gives `My-cats`."""
    stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]{1,4}$", "", re.split(r"[/\\]", filename)[-1])
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:80]
    return f"data-{name}".rstrip("-") if not name or name.lower().startswith(names.ID_PREFIXES) else name


def get(session: Session, ref: str) -> Dataset:
    """The data set with this id or name. Raises NotFound, and Gone for the id of a deleted one."""
    return _get(session, ref, select(Dataset))


def hold(session: Session, ref: str) -> None:
    """Hold the data set with this id or name against deletion until the transaction ends. Raises NotFound and Gone."""
    _get(session, ref, select(Dataset).with_for_update(read=True))


def ready(session: Session, ref: str) -> Dataset:
    """The prepared data set with this id or name. Raises NotFound, Gone, and InvalidState while it is preparing or when that failed."""
    dataset = get(session, ref)
    if dataset.status == "succeeded":
        return dataset
    if dataset.status == "failed":
        reason = (dataset.error or {}).get("message", "for an unknown reason")
        raise InvalidState(f"Data set {dataset.name!r} could not be prepared: {reason}", "failed")
    raise InvalidState(
        f"Data set {dataset.name!r} is still being prepared: wait until its status is ready.", "preparing"
    )


def _get(session: Session, ref: str, query: Select[Dataset]) -> Dataset:
    dataset = session.scalar(query.where(or_(Dataset.id == ref, and_(Dataset.name == ref, LIVE))))
    if dataset is None:
        raise NotFound(f"There is no data set {ref!r}: GET /v1/datasets lists those that there are.")
    if dataset.deleted_at is not None:
        raise Gone(f"Data set {ref!r} was deleted.")
    return dataset


def list_datasets(
    session: Session, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> tuple[Sequence[Dataset], str | None]:
    """A page of data sets, newest first, and the cursor of the next page. Raises Invalid for a malformed cursor."""
    query = select(Dataset).where(LIVE)
    return fetch_page(session, query, Dataset.created_at, Dataset.id, limit=limit, cursor=cursor)


def delete(session: Session, ref: str) -> str:
    """Delete a data set; gives the storage prefix to delete once this has committed.

    The run that is preparing it loses its lease: it ends at its next renewal, and deletes what it stored since.
    Raises NotFound, Gone, and InUse while an unfinished job uses it.
    """
    dataset = _get(session, ref, select(Dataset).with_for_update())
    jobs = session.scalars(
        select(Job.id).where(Job.dataset_id == dataset.id, Job.status.not_in(ENDED)).order_by(Job.created_at).limit(3)
    ).all()
    if jobs:
        raise InUse(
            f"Data set {dataset.name!r} is used by {', '.join(jobs)}: cancel what uses it, or wait until it ends."
        )
    dataset.deleted_at = clock(session)
    if dataset.status in {"queued", "running"}:
        dataset.status = "failed"  # so that no worker claims it, and the one that has it is refused
        dataset.worker = dataset.lease_until = None
    return f"datasets/{dataset.id}"


def unused_prefix(session: Session, dataset_id: str, fence: int) -> str | None:
    """The storage prefix that nobody needs after the run with this fence: all of a data set that failed, or what the run alone
    stored; None when that is the data set.
    """
    dataset = session.get_one(Dataset, dataset_id)
    if dataset.status == "failed":
        return f"datasets/{dataset_id}"
    key = prepared_key(dataset_id, fence)
    return None if dataset.key == key else key


def claim(session: Session, worker: str) -> Dataset | None:
    """The next data set to prepare, leased to `worker`; None when none waits."""
    return leases.claim(session, Dataset, worker)


def renew(session: Session, dataset_id: str, fence: int) -> None:
    """Prolong the lease; raises LeaseLost."""
    leases.renew(session, Dataset, dataset_id, fence)


def finish(session: Session, dataset_id: str, fence: int, prepared: Document) -> None:
    """The data set is ready: `prepared` is its dataset.json, and its files lie under `prepared_key`. Raises LeaseLost."""
    leases.finish(
        session,
        Dataset,
        dataset_id,
        fence,
        status="succeeded",
        key=prepared_key(dataset_id, fence),
        sha256=prepared["sha256"],
        examples=prepared["examples"],
        height=prepared["height"],
        width=prepared["width"],
        channels=prepared["channels"],
        classes=prepared["classes"],
        report=prepared["report"],
        finished_at=now(),
    )


def fail(session: Session, dataset_id: str, fence: int, code: str, message: str) -> None:
    """The data set cannot be prepared, for a reason that its owner reads. Raises LeaseLost."""
    leases.finish(
        session,
        Dataset,
        dataset_id,
        fence,
        status="failed",
        error={"code": code, "message": message},
        finished_at=now(),
    )


def release(session: Session, dataset_id: str, fence: int) -> None:
    """Give the data set back to the queue, for another worker to prepare. Raises LeaseLost."""
    leases.finish(session, Dataset, dataset_id, fence, status="queued")


def crashed(session: Session, dataset_id: str, fence: int, code: str, message: str) -> None:
    """The run died without giving a reason: it is tried again, until it has failed `max_attempts` times. Raises LeaseLost."""
    dataset = leases.held(session, Dataset, dataset_id, fence)
    dataset.attempt += 1
    _lose(session, dataset, code, message)


def sweep(session: Session) -> int:
    """Take data sets from workers whose lease is over; how often to ring for those that wait. May run anywhere, any number of times."""
    for dataset in leases.expire(session, Dataset):
        _lose(session, dataset, "worker_lost", "Its worker stopped answering.")
    session.flush()
    return leases.to_ring(session, Dataset)


def _lose(session: Session, dataset: Dataset, code: str, message: str) -> None:
    leases.free(dataset)
    dataset.status = leases.after_loss(session, dataset)
    if dataset.status == "failed":
        detail = f"{dataset.attempt} attempts to prepare it ended early. The last: {message}"
        dataset.error = {"code": code, "message": detail}
        dataset.finished_at = clock(session)


def prepared_key(dataset_id: str, fence: int) -> str:
    """The storage prefix under which this run's examples.npy, labels.npy and dataset.json go."""
    return f"datasets/{dataset_id}/{fence}"


def spec(dataset: Dataset) -> DataSpec:
    """The shape of a prepared data set, for a training config to fit."""
    shape = {field: getattr(dataset, field) for field in ("examples", "height", "width", "channels")}
    classes = dataset.classes or []
    unlabelled = shape["examples"] - sum(entry["count"] for entry in classes) if classes else 0
    return DataSpec.model_validate(shape | {"classes": [entry["name"] for entry in classes], "unlabelled": unlabelled})
