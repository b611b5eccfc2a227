"""One batch on this worker: claim it, have a limited child make its shards, store each, and put the archive together.

A shard's file is stored first, under a key with the fence in it, and counts once its row is committed. So after any end, this
worker's own included, the next claim goes on after the last row.
"""

import hashlib
import json
import resource
from collections.abc import Mapping
from pathlib import Path

import structlog

from app import batches
from app.batches import archives
from app.errors import NotFound, Unavailable
from app.registry import SNAPSHOT_FILES
from app.tables import ENDED, Batch, BatchShard, Document
from models.machine import spare_memory
from worker.child import Child, Lines, thread_environment
from worker.lease import Lease, clock
from worker.service import Service
from worker.supervisor import Ending, Line, Supervision, recorded
from worker.workspace import RunDirectory, run_directory

log = structlog.get_logger()

CHILD = "worker.batch"
MEMORY_SHARE = 0.8  # of what the machine has to spare when the child starts


def batch_next(service: Service, environment: Mapping[str, str]) -> bool:
    """Claim the next batch and make it; False when none waits or this worker is to end."""
    if service.stopping.is_set():
        return False
    asked_at = clock()
    with service.database.writing() as session:
        batch = batches.claim(session, service.name)
    if batch is None:
        return False
    log.info("batch.claimed", batch=batch.id, fence=batch.fence)
    lease = Lease(service.database, batch.id, batch.fence, batches.renew, asked_at=asked_at, stopping=service.stopping)
    try:
        with (
            lease,
            recorded(lease, release=batches.release, fail=batches.fail, crashed=batches.crashed),
            run_directory(service.runs, f"{batch.id}.{batch.fence}") as directory,
        ):
            _work(service, batch, lease, directory, environment)
    finally:
        _clear(service, batch.id)
    return True


def _work(
    service: Service, batch: Batch, lease: Lease, directory: RunDirectory, environment: Mapping[str, str]
) -> None:
    made = len(lease.patiently(_shards, service, batch.id))
    ending = Ending("finished")
    if made < batches.shard_count(batch):
        try:
            snapshot = _snapshot(service, lease, batch, directory.path)
        except NotFound:
            lease.write(batches.fail, "gone", f"The files of {batch.model} are no longer in the storage.")
            return
        _write_request(service, batch, directory.path, snapshot, made)
        ending = _make(service, batch, lease, directory, environment)
    log.info("batch.ended", batch=batch.id, fence=batch.fence, ending=ending.kind, code=ending.code)
    match ending.kind:
        case "finished":
            _finish(service, batch, lease, directory.path)
        case "stopped":
            lease.write(batches.release, lease.stop_reason or "stopped")
        case "failed":
            lease.write(batches.fail, ending.code, ending.message)
        case _:
            lease.write(batches.crashed, ending.code, ending.message)


def _snapshot(service: Service, lease: Lease, batch: Batch, directory: Path) -> Path:
    """A folder with the model's files; the child checks them. Raises NotFound."""
    stored = service.storage.local_path(batch.snapshot_key)
    if stored is not None:
        if not all((stored / name).exists() for name in SNAPSHOT_FILES):
            raise NotFound(f"There is no snapshot {batch.snapshot_key!r} in the storage.")
        return stored.resolve()
    folder = directory / "snapshot"
    for name in SNAPSHOT_FILES:
        lease.patiently(service.storage.get_file, f"{batch.snapshot_key}/{name}", folder / name)
    return folder


def _write_request(service: Service, batch: Batch, directory: Path, snapshot: Path, made: int) -> None:
    request = {
        "snapshot": str(snapshot),
        "model": {name: getattr(batch, name) for name in ("sha256", "snapshot_key", "info")} | {"label": batch.model},
        "seeds": batch.seeds,
        "total": batch.total,
        "options": batch.options,
        "first_shard": made,
        "threads": service.settings.sampler_threads,
    }
    (directory / "batch.json").write_text(json.dumps(request), encoding="utf-8")


def _make(
    service: Service, batch: Batch, lease: Lease, directory: RunDirectory, environment: Mapping[str, str]
) -> Ending:
    def ship(lines: list[Line]) -> None:
        for line in lines:
            if line["kind"] == "shard":
                _store_shard(service, batch, lease, directory.path, line["data"])

    environment = {**environment, **thread_environment(service.settings.sampler_threads)}
    with Child(CHILD, directory.path, environment=environment, keep_open=[directory.lock]) as child:
        child.limit(_limits(service))
        return Supervision(child, Lines(directory.path / "events.jsonl"), lease, ship, service.settings).run()


def _limits(service: Service) -> dict[int, int]:
    """By RLIMIT number. A GPU's driver maps more memory than the machine has."""
    spare = None if service.gpus else spare_memory()
    limits = {resource.RLIMIT_CORE: 0}
    return limits if spare is None else limits | {resource.RLIMIT_DATA: int(MEMORY_SHARE * spare)}


def _store_shard(service: Service, batch: Batch, lease: Lease, directory: Path, about: Document) -> None:
    path, key = directory / about["path"], batches.shard_key(batch, about["index"])
    lease.patiently(service.storage.put_file, key, path)
    same = ("index", "samples", "size", "body", "sha256", "engine", "encoder")
    new = batches.NewShard(key=key, **{name: about[name] for name in same})
    lease.write(batches.record_shard, new, about["samples_per_second"])
    path.unlink()  # which lets the child make another


def _finish(service: Service, batch: Batch, lease: Lease, directory: Path) -> None:
    """The archive is nowhere stored as one: what is written is a zip's directory, and what it all hashes to."""
    shards = lease.patiently(_shards, service, batch.id)
    directory_of_zip: Document | None = None
    if batch.options["container"] == "zip":
        path, key = directory / "directory", archives.directory_key(batches.run_key(batch.id, batch.fence))
        lease.patiently(archives.write_directory, service.storage, shards, path)
        lease.patiently(service.storage.put_file, key, path)
        directory_of_zip = {"key": key, "size": path.stat().st_size}
    parts = archives.pieces(batch, shards, directory_of_zip)
    size = archives.size(parts)
    sha256 = lease.patiently(_hash, service, lease, parts)
    if sha256 is None:
        lease.write(batches.release, lease.stop_reason or "stopped")
    else:
        lease.write(batches.succeed, size=size, sha256=sha256, directory=directory_of_zip)


def _hash(service: Service, lease: Lease, parts: list[archives.Piece]) -> str | None:
    """Of the archive as it is stored; None when the work should stop. A turn that ends now may as well end a little later."""
    digest = hashlib.sha256()
    for chunk in archives.stream(service.storage, parts, 0, archives.size(parts)):
        if lease.stop_reason in {"cancel", "deploy"}:
            return None
        digest.update(chunk)
    return digest.hexdigest()


def _shards(service: Service, batch_id: str) -> list[BatchShard]:
    with service.database.reading() as session:
        return [*batches.shards(session, batch_id)]


def _clear(service: Service, batch_id: str) -> None:
    """Delete the objects of a batch that failed, or was cancelled or deleted under our hands."""
    try:
        with service.database.reading() as session:
            batch = session.get_one(Batch, batch_id)
        if batch.status in ENDED - {"succeeded"} or batch.deleted_at is not None:
            service.storage.delete_prefix(batches.prefix(batch_id))
    except Unavailable as error:
        log.warning("storage.left_behind", what=batch_id, error=error.detail)
