"""A server as a tree of processes: started, watched through /proc, stopped."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

START_SECONDS = 120
STOP_SECONDS = 15
TICKS = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """It did not come up; the message has the end of what it said."""


class Tree:
    """A process and all that descend from it."""

    def __init__(self, root: int) -> None:
        self.root = root

    def pids(self) -> list[int]:
        parents = {pid: stat[1] for pid in _all() if (stat := _stat(pid)) is not None}
        found = [self.root]
        for pid in found:  # it grows meanwhile
            found += [child for child, parent in parents.items() if int(parent) == pid]
        return found

    def cpu_seconds(self) -> float:
        """Of all that live, and of their children that ended and were waited for."""
        stats = [stat for pid in self.pids() if (stat := _stat(pid)) is not None]
        return sum(int(field) for stat in stats for field in stat[11:15]) / TICKS

    def memory_bytes(self) -> int:
        """What the tree has for itself: pages that several share are counted once (PSS)."""
        return sum(_pss(pid) for pid in self.pids())


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, from `state` on; None for a process that has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], ready: str, log: Path) -> Iterator[Tree]:
    """The server, once `ready` (a URL) answers with success. Raises ServerFailed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    tree = Tree(process.pid)
    try:
        _wait(process, ready, log)
        yield tree
    finally:
        _stop(process, tree)


def _wait(process: subprocess.Popen, ready: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=10) as http:
        while time.monotonic() < end and process.poll() is None:
            with suppress(httpx.TransportError):
                if http.get(ready).is_success:
                    return
            time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()[-15:]
    raise ServerFailed("\n".join(["the server did not come up; its last words:", *said]))


def _stop(process: subprocess.Popen, tree: Tree) -> None:
    left = tree.pids()
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in left:  # helpers that the server did not end itself
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
