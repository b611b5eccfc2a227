"""Models in formats that other programs read. A generator is exported when it is first asked for, by a child process that has torch
and may not live long, and stored beside its snapshot.

An export that failed is not tried again for a while: it would take as long, and fail again.

The object is the file and, after it, its SHA-256 as hexadecimal digits: one object, so that two processes that export the same
generator at the same time, on machines whose last digits differ, cannot leave the file of one with the digest of the other.
"""

import hashlib
import os
import subprocess
import sys
import time
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
FAILED_SECONDS = 600.0  # for which a failure is remembered
MOST_FAILED = 1000  # of them
DIGEST_LENGTH = hashlib.sha256().digest_size * 2  # in hexadecimal
# The child needs none of our secrets: only what Python, torch and the system libraries read goes on.
PASSED_ON = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"}
PASSED_ON_BY_PREFIX = ("LC_", "PYTHON", "OMP_", "MKL_")

log = structlog.get_logger()


# What the child's exit status says that the last line of its output is about (see worker.export).
OUTCOMES: dict[int, type[GanvilError]] = {3: ExportFailed, 4: NotInstalled}


class Exported(NamedTuple):
    """A stored file: the first `size` bytes of the object `key`."""

    key: str
    size: int
    sha256: str


class _Failures:
    """Why exports failed lately, by the key of what they would have made. One thread at a time may add."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, str]] = {}  # oldest first

    def add(self, key: str, reason: str) -> None:
        while len(self._found) >= MOST_FAILED:
            del self._found[next(iter(self._found))]
        self._found.pop(key, None)
        self._found[key] = (time.monotonic(), reason)

    def check(self, key: str) -> None:
        """Raises ExportFailed with the reason of a failure that is not long ago."""
        at, reason = self._found.get(key, (0.0, None))
        if reason is not None and time.monotonic() < at + FAILED_SECONDS:
            raise ExportFailed(reason)


class Exporter:
    """Exports one generator at a time, because each takes a core and hundreds of megabytes. Safe to share between threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._failures = _Failures()
        self._exporting = Lock()
        self._places = BoundedSemaphore(AT_ONCE)

    def onnx(self, resolved: Resolved) -> Exported:
        """The generator as an ONNX file: the stored one, or else one that is made now, once for all who ask meanwhile.

        Raises ExportFailed, also for one that failed not long ago, NotInstalled, Busy, Gone, Unavailable and StorageFull.
        """
        if (stored := self.stored_onnx(resolved)) is not None:
            return stored
        key = _key(resolved)
        if not self._places.acquire(blocking=False):
            raise Busy(
                "Other models are being exported: ask again in a moment.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        try:
            with self._exporting:
                return self.stored_onnx(resolved) or self._made(key, resolved)
        finally:
            self._places.release()

    def stored_onnx(self, resolved: Resolved) -> Exported | None:
        """The same, or None where it is not made yet. Raises ExportFailed where it could not be, not long ago."""
        key = _key(resolved)
        if (stored := self._stored(key)) is None:
            self._failures.check(key)
        return stored

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
            try:
                _run(snapshot, out, resolved.label)
            except ExportFailed as error:
                self._failures.add(key, error.detail)
                raise
            size, sha256 = _seal(out)
            self._storage.put_file(key, out)
        return Exported(key, size, sha256)


def _key(resolved: Resolved) -> str:
    return f"{resolved.snapshot_key}/{ONNX}"


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
        subprocess.Popen(  # noqa: S603 - ours
            command, cwd=HOUSE, env=_environment(), stdin=subprocess.PIPE, stdout=file, stderr=file
        ) as child,
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


def _environment() -> dict[str, str]:
    """The part of our environment that the child is given."""
    return {
        name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_BY_PREFIX)
    }


def _seal(path: Path) -> tuple[int, str]:
    """Append its digest to a file; its size before that, and the digest."""
    with path.open("r+b") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.write(sha256.encode("ascii"))
    return size, sha256
