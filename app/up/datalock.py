"""One `ganvil up` to a data directory: an flock that its guard also holds until every child has ended."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.up.guard import process_exists


class DataDirectoryHeld(Exception):
    """Another process tree works on this data directory."""


@contextlib.contextmanager
def hold(data_dir: Path, *, patience_seconds: float, say: Callable[[str], None]) -> Iterator[int]:
    """Creates the directory and holds it; yields the lock's file descriptor. Raises DataDirectoryHeld.

    When the process that held it is dead and only its children are still coming to an end, says so and waits for them.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "up.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait_for_lock(descriptor, path, patience_seconds, say)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, patience_seconds: float, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + patience_seconds
    told = False
    while not _locked(descriptor):
        holder = os.pread(descriptor, 32, 0).decode().strip()
        if time.monotonic() >= deadline or (holder and process_exists(int(holder))):
            raise DataDirectoryHeld(
                f"{path.parent} is in use by another ganvil up (process {holder or 'unknown'}). "
                "Stop that one, or give --data another directory."
            )
        if holder and not told:  # one that has just taken the lock writes its id in a moment
            say(
                f"The last ganvil up (process {holder}) was killed: waiting for its worker and API to end, "
                f"at most {patience_seconds:.0f} s ..."
            )
            told = True
        time.sleep(0.1)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
