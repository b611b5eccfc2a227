"""Local disk: the directory of one run, and a bounded cache of prepared data sets. Both are held by `flock`.

A lock lives exactly as long as the processes that hold its descriptor. So whatever a dead worker left behind is recognised
without process ids, and a directory that an orphaned child still writes to is not taken from under it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.storage import Storage
from worker.data import FEATURES_FILE, PREPARED_FILES

log = structlog.get_logger()

CACHE_BYTES = 20 * 2**30
PARTIAL = ".partial"


@dataclass(frozen=True)
class RunDirectory:
    """An empty directory of our own. Whoever inherits `lock` keeps it from being cleaned away."""

    path: Path
    lock: int


@contextmanager
def run_directory(root: Path, name: str) -> Iterator[RunDirectory]:
    """Make `root/name`, hold it, and remove it at the end."""
    path = root / name
    root.mkdir(parents=True, exist_ok=True)
    lock = _hold(_lock_file(path))
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        yield RunDirectory(path.resolve(), lock)
    finally:
        _discard(path, lock)


def clean_run_directories(root: Path) -> int:
    """Remove the run directories that no living process holds; how many there were."""
    removed = 0
    for lock_file in sorted(root.glob("*.lock")):
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT)
        if _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_current(lock, lock_file):
            _discard(lock_file.with_suffix(""), lock)
            removed += 1
        else:
            os.close(lock)
    return removed


class DatasetCache:
    """Prepared data sets of a remote storage on local disk, least recently used out first.

    One process fetches a data set while the others wait for it; one that is in use is never thrown out. The bound is checked
    after each fetch and may be passed by what is in use.
    """

    def __init__(self, root: Path, storage: Storage, limit_bytes: int = CACHE_BYTES) -> None:
        self._root = root
        self._storage = storage
        self._limit_bytes = limit_bytes

    @contextmanager
    def files(self, key: str, name: str) -> Iterator[Path]:
        """A directory with the files under the storage prefix `key`. `name` identifies their content. Read-only."""
        local = self._storage.local_path(f"{key}/{PREPARED_FILES[0]}")
        if local is not None:
            yield local.parent
            return
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / name
        lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT)
        try:
            self._enter(key, path, lock)
            yield path
        finally:
            os.close(lock)

    def _enter(self, key: str, path: Path, lock: int) -> None:
        """Take the shared lock with the files in place. Changing a lock's kind lets others in between: hence the loop."""
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not path.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                self._fetch(key, path)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(path)

    def _fetch(self, key: str, path: Path) -> None:
        partial = path.with_name(f"{path.name}{PARTIAL}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        optional = [FEATURES_FILE] if self._storage.exists(f"{key}/{FEATURES_FILE}") else []
        for name in (*PREPARED_FILES, *optional):
            self._storage.get_file(f"{key}/{name}", partial / name)
        partial.rename(path)
        self._evict()

    def _evict(self) -> None:
        complete = [path for path in self._root.iterdir() if path.is_dir() and not path.name.endswith(PARTIAL)]
        entries = sorted(complete, key=lambda path: path.stat().st_mtime)
        total = sum(_bytes_in(path) for path in entries)
        for path in entries:
            if total <= self._limit_bytes:
                return
            lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT)
            if _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                total -= _bytes_in(path)
                shutil.rmtree(path)
                log.info("dataset_cache.evicted", name=path.name)
            os.close(lock)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _hold(lock_file: Path) -> int:
    """Lock a file that is going to be unlinked with its lock: what was locked must still be what the name means."""
    while True:
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(lock, lock_file):
            return lock
        os.close(lock)


def _is_current(lock: int, lock_file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), lock_file.stat())
    except FileNotFoundError:
        return False


def _discard(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    _lock_file(path).unlink(missing_ok=True)
    os.close(lock)


def _locked(lock: int, operation: int) -> bool:
    try:
        fcntl.flock(lock, operation)
    except BlockingIOError:
        return False
    return True


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
