"""One preparation on this worker: claim a data set, have a limited child read its upload, store what came out of it."""

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app import datasets
from app.errors import Unavailable
from app.settings import GIB, MIB, Settings
from app.tables import Dataset
from worker.child import Child, Lines, thread_environment
from worker.data import FEATURES_FILE, PREPARED_FILES
from worker.lease import Lease, clock
from worker.service import Service
from worker.supervisor import Ending, Line, Supervision, recorded
from worker.workspace import run_directory

log = structlog.get_logger()

# The child refuses what an archive may not make it do. These are for what it does not see coming: decoders that run away.
CPU_SECONDS = 4 * 3600
MEMORY_BYTES = 4 * GIB  # of its own; what it maps from files does not count


def prepare_next(service: Service, environment: Mapping[str, str]) -> bool:
    """Claim the next data set and prepare it; False when none waits or this worker is to end."""
    if service.stopping.is_set():
        return False
    asked_at = clock()
    with service.database.writing() as session:
        dataset = datasets.claim(session, service.name)
    if dataset is None:
        return False
    log.info("dataset.claimed", dataset=dataset.id, fence=dataset.fence)
    lease = Lease(
        service.database, dataset.id, dataset.fence, datasets.renew, asked_at=asked_at, stopping=service.stopping
    )
    try:
        with lease, recorded(lease, release=_release, fail=datasets.fail, crashed=datasets.crashed):
            _prepare(service, dataset, lease, environment)
    finally:
        _clear(service, dataset.id, dataset.fence)
    return True


def _prepare(service: Service, dataset: Dataset, lease: Lease, environment: Mapping[str, str]) -> None:
    with run_directory(service.runs, f"{dataset.id}.{dataset.fence}") as directory:
        _write_request(service, lease, dataset, directory.path)
        environment = {**environment, **thread_environment(1)}
        with Child("worker.data", directory.path, environment=environment, keep_open=[directory.lock]) as child:
            child.limit(limits(service.settings))
            lines = Lines(directory.path / "events.jsonl")
            ending = Supervision(child, lines, lease, _ignore, service.settings).run()
        _conclude(service, lease, directory.path, ending)


def limits(settings: Settings) -> dict[int, int]:
    """The resource limits of a preparing child, by RLIMIT number."""
    return {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_DATA: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: max(settings.archive_total_limit_bytes, settings.archive_prepared_bytes_limit) + MIB,
        resource.RLIMIT_CORE: 0,
    }


def _write_request(service: Service, lease: Lease, dataset: Dataset, directory: Path) -> None:
    settings = service.settings
    request = {
        "source": _source(service, lease, dataset, directory),
        "options": dataset.options,
        "limits": {
            "members": settings.archive_members_limit,
            "total_bytes": settings.archive_total_limit_bytes,
            "member_bytes": settings.archive_member_limit_bytes,
            "ratio": settings.archive_ratio_limit,
            "pixels": settings.image_pixels_limit,
            "prepared_bytes": settings.archive_prepared_bytes_limit,
        },
    }
    (directory / "prepare.json").write_text(json.dumps(request), encoding="utf-8")


def _source(service: Service, lease: Lease, dataset: Dataset, directory: Path) -> dict[str, Any]:
    if dataset.source["kind"] != "upload":
        return dataset.source
    key = dataset.source["key"]
    path = service.storage.local_path(key)
    if path is None:
        path = directory / "upload"
        lease.patiently(service.storage.get_file, key, path)
    return {"kind": "archive", "path": str(path.resolve())}


def _conclude(service: Service, lease: Lease, directory: Path, ending: Ending) -> None:
    log.info("dataset.ended", dataset=lease.row_id, fence=lease.fence, ending=ending.kind, code=ending.code)
    match ending.kind:
        case "finished":
            key = datasets.prepared_key(lease.row_id, lease.fence)
            prepared = json.loads((directory / "dataset.json").read_bytes())
            for name in (FEATURES_FILE, *PREPARED_FILES) if "features" in prepared else PREPARED_FILES:
                lease.patiently(service.storage.put_file, f"{key}/{name}", directory / name)
            lease.write(datasets.finish, prepared)
        case "stopped":
            lease.write(datasets.release)
        case "failed":
            lease.write(datasets.fail, ending.code, ending.message)
        case _:
            lease.write(datasets.crashed, ending.code, ending.message)


def _release(session: Session, dataset_id: str, fence: int, _reason: str) -> None:
    datasets.release(session, dataset_id, fence)


def _clear(service: Service, dataset_id: str, fence: int) -> None:
    """Delete the objects that nothing refers to once this run is over: all of a data set that failed or was deleted under our
    hands, else those of this run unless they became the data set.
    """
    try:
        with service.database.reading() as session:
            unused = datasets.unused_prefix(session, dataset_id, fence)
        if unused is not None:
            service.storage.delete_prefix(unused)
    except Unavailable as error:
        log.warning("storage.left_behind", what=dataset_id, error=error.detail)


def _ignore(_lines: list[Line]) -> None:
    """A preparation tells of its progress, which nobody keeps."""
