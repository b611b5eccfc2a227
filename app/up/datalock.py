"""One `ganvil up` to a data directory: an flock that its guard also holds until every child has ended."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from app.up.guard import process_exists


class DataDirectoryHeld(Exception):
    """Another process tree works on this data directory."""


@contextlib.contextmanager
def hold(data_dir: Path, *, patience_seconds: float) -> Iterator[int]:
    """Creates the directory and holds it; yields the lock's file descriptor. Raises DataDirectoryHeld.

    When the process that held it is dead and only its children are still coming to an end, waits for them.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "up.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, path, time.monotonic() + patience_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if time.monotonic() >= deadline or (holder and process_exists(int(holder))):
                raise DataDirectoryHeld(
                    f"{path.parent} is in use by another ganvil up (process {holder or 'unknown'}). "
                    "Stop that one, or give --data another directory."
                ) from None
            time.sleep(0.1)
        else:
            return
