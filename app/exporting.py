"""Models in formats that other programs read. A generator is exported when it is first asked for, by a child process that has torch
and may not live long, and stored beside its snapshot.

The object is the file and, after it, its SHA-256 as hexadecimal digits: one object, so that two processes that export the same
generator at the same time, on machines whose last digits differ, cannot leave the file of one with the digest of the other.
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Lock
from typing import NamedTuple

import structlog

from app.errors import Busy, ExportFailed, GanvilError, NotFound, NotInstalled, Unavailable
from app.registry import Resolved
from app.sampling.snapshots import snapshot_folder
from app.storage import Storage
from models.manifest import ONNX, ModelFileError, read_info

HOUSE = Path(__file__).resolve().parents[1]  # where `-m` finds our programs, whatever stands in the current folder
LONGEST_SECONDS = 300.0
AT_ONCE = 4  # requests that export or wait for it: each holds a thread that all others need too
RETRY_SECONDS = 10
DIGEST_LENGTH = hashlib.sha256().digest_size * 2  # in hexadecimal

log = structlog.get_logger()


# What the child's exit status says that the last line of its output is about (see worker.export).
OUTCOMES: dict[int, type[GanvilError]] = {3: ExportFailed, 4: NotInstalled}


class Exported(NamedTuple):
    """A stored file: the first `size` bytes of the object `key`."""

    key: str
    size: int
    sha256: str


class Exporter:
    """Exports one generator at a time, because each takes a core and hundreds of megabytes. Safe to share between threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._exporting = Lock()
        self._places = BoundedSemaphore(AT_ONCE)

    def onnx(self, resolved: Resolved) -> Exported:
        """The generator as an ONNX file: the stored one, or else one that is made now, once for all who ask meanwhile.

        Raises ExportFailed, NotInstalled, Busy, Gone, Unavailable and StorageFull.
        """
        key = f"{resolved.snapshot_key}/{ONNX}"
        if (stored := self._stored(key)) is not None:
            return stored
        if not self._places.acquire(blocking=False):
            raise Busy(
                "Other models are being exported: ask again in a moment.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        try:
            with self._exporting:
                return self._stored(key) or self._made(key, resolved)
        finally:
            self._places.release()

    def _stored(self, key: str) -> Exported | None:
        try:
            end = self._storage.size(key)
            (digest,) = self._storage.get_ranges(key, [(end - DIGEST_LENGTH, end)])
        except NotFound:
            return None
        return Exported(key, end - DIGEST_LENGTH, digest.decode("ascii"))

    def _made(self, key: str, resolved: Resolved) -> Exported:
        with snapshot_folder(self._storage, resolved) as snapshot, TemporaryDirectory(prefix="ganvil-export-") as name:
            _check(snapshot, resolved)
            out = Path(name) / ONNX
            _run(snapshot, out, resolved.label)
            size, sha256 = _seal(out)
            self._storage.put_file(key, out)
        return Exported(key, size, sha256)


def _check(snapshot: Path, resolved: Resolved) -> None:
    """Raises Unavailable for files that are not the ones on record; whether the weights are whole is for who loads them."""
    try:
        found = read_info(snapshot).sha256
    except ModelFileError as error:
        raise Unavailable(f"The stored files of {resolved.label} cannot be used: restore or delete it.") from error
    if found != resolved.sha256:
        raise Unavailable(f"The stored files of {resolved.label} are not the ones on record: restore or delete it.")


def _run(snapshot: Path, out: Path, label: str) -> None:
    """Have the child write `out`. It ends with us: it reads a pipe that this process alone holds. Raises ExportFailed, NotInstalled."""
    command = [sys.executable, "-m", "worker.export", str(snapshot), str(out), "--stop-fd", "0"]
    output = out.with_suffix(".log")
    with (
        output.open("wb") as file,
        subprocess.Popen(command, cwd=HOUSE, stdin=subprocess.PIPE, stdout=file, stderr=file) as child,  # noqa: S603 - ours
    ):
        try:
            status = child.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ExportFailed(f"The export of {label} took more than {LONGEST_SECONDS:.0f} seconds.") from error
        finally:
            child.kill()
    if status == 0:
        return
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    log.warning("export.failed", model=label, status=status, output=lines[-20:])
    if (kind := OUTCOMES.get(status)) is None:
        raise ExportFailed(f"The export of {label} ended with status {status}: the server's log has its last words.")
    raise kind(lines[-1])


def _seal(path: Path) -> tuple[int, str]:
    """Append its digest to a file; its size before that, and the digest."""
    with path.open("r+b") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.write(sha256.encode("ascii"))
    return size, sha256
