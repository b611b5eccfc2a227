"""What goes between a run directory and the storage: checkpoints in, and whatever the trainer's lines name out.

Files are stored first, under keys that contain the fence, and count only once the row that names them is committed: nothing
of a lost run, or of half an upload, is ever seen.
"""

import hashlib
import json
import shutil
from pathlib import Path

import structlog
from sqlalchemy import select

from app import jobs
from app.errors import NotFound
from app.jobs import NewCheckpoint, NewEvent, history
from app.registry import SNAPSHOT_FILES
from app.storage import Storage
from app.tables import Checkpoint, Document
from models.manifest import MANIFEST, STATE, WEIGHTS
from worker.lease import Lease
from worker.service import Service
from worker.supervisor import Line

log = structlog.get_logger()

REPORTED = ("started", "metrics", "evaluation", "warning", "verdict", "log")


class Shipper:
    """Stores and records what one run makes, in the order of its lines."""

    def __init__(self, service: Service, lease: Lease, directory: Path) -> None:
        self._storage = service.storage
        self._bell = service.bell
        self._lease = lease
        self._directory = directory
        self._prefix = jobs.run_key(lease.row_id, lease.fence)
        self._events: list[NewEvent] = []

    def ship(self, lines: list[Line]) -> None:
        """Everything that the lines say and name. Raises LeaseLost, StorageFull, and Unavailable once the run should stop.

        Of several checkpoints only the newest brings its training state, and brings it first: a storage that is slower than
        the trainer, which keeps a few states, would otherwise always ask for one that is gone.
        """
        states = {line["examples_seen"]: self._ship_state(line) for line in _checkpoints(lines)[-1:]}
        for line in lines:
            if line["kind"] == "checkpoint":
                self._flush()
                self._ship_checkpoint(line, states.get(line["examples_seen"]))
            elif line["kind"] == "grid":
                self._events.append(_event(line, {"key": self._ship_grid(line)}))
            elif line["kind"] in REPORTED:
                self._events.append(_event(line, line["data"]))
        self._flush()
        self._bell.notify(self._lease.row_id)

    def _flush(self) -> None:
        if self._events:
            self._lease.write(jobs.report, self._events)
            self._events = []

    def _ship_grid(self, line: Line) -> str:
        key = f"{self._prefix}/grids/{line['examples_seen']:012d}.png"
        self._lease.patiently(self._storage.put_file, key, self._directory / line["data"]["path"])
        return key

    def _ship_checkpoint(self, line: Line, state_key: str | None) -> None:
        data, key = line["data"], self._key_of(line)
        for name in SNAPSHOT_FILES:
            self._lease.patiently(self._storage.put_file, f"{key}/{name}", self._directory / data["path"] / name)
        new = NewCheckpoint(line["examples_seen"], state_key, key, data["sha256"], data["size"], data["kid"])
        unneeded = self._lease.write(jobs.record_checkpoint, new)
        self._lease.patiently(self._storage.delete, unneeded)

    def _ship_state(self, line: Line) -> str | None:
        """The state's key; None when the trainer gave this one up before its turn came."""
        key = f"{self._key_of(line)}/{STATE}"
        try:
            self._lease.patiently(self._storage.put_file, key, self._directory / line["data"]["path"] / STATE)
        except NotFound:
            return None
        return key

    def _key_of(self, line: Line) -> str:
        return f"{self._prefix}/checkpoints/{line['examples_seen']:012d}"


def fetch_checkpoint(service: Service, lease: Lease, directory: Path) -> bool:
    """Put the newest checkpoint where the trainer goes on from it, and the best where it finds it when it has to go back; both are
    often one. A warning event for each that cannot be read. Whether there is any.
    """
    found = False
    for row in lease.patiently(_resumable, service, lease.row_id):
        target = directory / "checkpoints" / f"{row.examples_seen:012d}"
        try:
            lease.patiently(_fetch, service.storage, row, target)
            found = True
        except (NotFound, ValueError) as error:
            shutil.rmtree(target, ignore_errors=True)
            message = (
                f"The checkpoint after {row.examples_seen} examples cannot be used ({error}); going on without it."
            )
            log.warning("checkpoint.unusable", checkpoint=row.id, error=str(error))
            lease.write(jobs.report, [NewEvent("warning", {"code": "checkpoint_unusable", "message": message})])
    return found


def _resumable(service: Service, job_id: str) -> list[Checkpoint]:
    """Newest first: it and the best keep their state."""
    with service.database.reading() as session:
        return [row for row in history.checkpoints(session, job_id) if row.state_key is not None]


def fetch_initial(service: Service, lease: Lease, initial: Document, target: Path) -> None:
    """Put the model that a job begins with into `target`: its snapshot, and its training state while that is still kept.

    Raises NotFound, and ValueError for what is not what was written.
    """
    key, storage = initial["snapshot_key"], service.storage
    for name in SNAPSHOT_FILES:
        lease.patiently(storage.get_file, f"{key}/{name}", target / name)
    if _sha256(target / WEIGHTS) != initial["sha256"]:
        raise ValueError("its weights are damaged")
    state_key = lease.patiently(_state_of, service, key)
    if state_key is None:
        return
    try:
        lease.patiently(storage.get_file, state_key, target / STATE)
        _check_state(target)
    except (NotFound, ValueError) as error:  # the weights alone will do
        (target / STATE).unlink(missing_ok=True)
        log.warning("initial.without_state", snapshot=key, error=str(error))


def _state_of(service: Service, snapshot_key: str) -> str | None:
    with service.database.reading() as session:
        kept = select(Checkpoint.state_key).where(Checkpoint.snapshot_key == snapshot_key)
        return session.scalars(kept).one_or_none()


def _fetch(storage: Storage, row: Checkpoint, target: Path) -> None:
    """Raises NotFound, and ValueError for what is not what was written."""
    assert row.state_key is not None
    storage.get_file(row.state_key, target / STATE)
    storage.get_file(f"{row.snapshot_key}/{MANIFEST}", target / MANIFEST)
    _check_state(target)


def _check_state(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if _sha256(folder / STATE) != manifest.get("state_sha256"):
        raise ValueError("its training state is damaged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checkpoints(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["kind"] == "checkpoint"]


def _event(line: Line, data: dict[str, object]) -> NewEvent:
    return NewEvent(line["kind"], data, line["examples_seen"], line["elapsed_seconds"])
