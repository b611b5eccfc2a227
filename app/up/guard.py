"""Ends the process groups that a dead parent left behind: `python -m app.up.guard GRACE_SECONDS`.

The parent holds the write end of our standard input and writes `+<pgid>` for a group it started and `-<pgid>` for one that has
ended. When the parent dies, however it dies, the pipe closes; what is still listed gets SIGTERM, and SIGKILL after the grace.
Unlike PR_SET_PDEATHSIG this works off Linux too, covers whole groups, and ends a child that ignores SIGTERM.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable


def kill_group(pgid: int, signum: int) -> None:
    """Sends a signal to a process group; one that has ended, or that is no longer ours, is left alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def group_exists(pgid: int) -> bool:
    return process_exists(-pgid)


def process_exists(pid: int) -> bool:
    """Whether there is a process `pid`, or any in the group when it is negative; zombies count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def read_groups(lines: Iterable[str]) -> set[int]:
    """Follows the parent's notes until its end of the pipe closes; returns the groups that are left."""
    groups: set[int] = set()
    for line in lines:
        pgid = int(line[1:])
        if line.startswith("+"):
            groups.add(pgid)
        else:
            groups.discard(pgid)
    return groups


def end_groups(groups: set[int], grace_seconds: float) -> None:
    for pgid in groups:
        kill_group(pgid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(group_exists(pgid) for pgid in groups):
        time.sleep(0.05)
    for pgid in groups:
        kill_group(pgid, signal.SIGKILL)


def main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # only the end of the pipe ends the guard
    end_groups(read_groups(sys.stdin), float(sys.argv[1]))


if __name__ == "__main__":
    main()
