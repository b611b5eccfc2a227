"""Child processes that are restarted when they die, ended in order, and never outlive their parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.up.guard import kill_group

# Where `-m` finds app, worker and models, whatever stands in our own directory.
HOUSE = Path(__file__).resolve().parents[2]
QUICK_DEATH_SECONDS = 10.0
QUICK_DEATHS_ALLOWED = 4
LONGEST_BACKOFF_SECONDS = 10.0


class ChildFailed(Exception):
    """A child died too often, too soon after its start, to be worth another try."""


class Guard:
    """A process beside us that ends our children should we be killed (see `app.up.guard`)."""

    def __init__(self, grace_seconds: float, *, keep_open: Sequence[int] = ()) -> None:
        """`keep_open`: file descriptors that the guard holds until it has done its duty, such as a lock."""
        self._process = subprocess.Popen(  # noqa: S603 - a command of ours, and no shell
            [sys.executable, "-m", "app.up.guard", str(grace_seconds)],
            stdin=subprocess.PIPE,
            text=True,
            cwd=HOUSE,
            start_new_session=True,
            pass_fds=keep_open,
        )

    def note(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: we still end our own children
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def status_of(pid: int) -> int | None:
    """The exit status of a child of ours, -N after signal N, None while it runs. It is not reaped: its id stays taken."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


@dataclass
class Child:
    """One program of the tree, in a session of its own so that a terminal's Ctrl-C reaches only its parent."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    guard: Guard
    cwd: Path | None = None
    log: Path | None = None  # what its output is appended to; without one it goes where ours goes
    stdin: str | None = None  # written to the child at its start; secrets go here rather than into `ps`
    restarts: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _started_at: float = field(default=0.0, init=False)
    _start_again_at: float = field(default=0.0, init=False)
    _quick_deaths: int = field(default=0, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self.log.open("ab") if self.log else contextlib.nullcontext() as output:
            self._process = subprocess.Popen(  # noqa: S603 - a command of ours, and no shell
                self.command,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.PIPE if self.stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self.guard.note(f"+{self._process.pid}")
        self._started_at = time.monotonic()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it died at once; `tend` will tell
                self._process.stdin.write(self.stdin or "")
                self._process.stdin.close()

    def tend(self) -> str | None:
        """Starts the child again if it died, after a pause that grows. Returns a line to tell the user, if there is news.

        Raises ChildFailed after several deaths within seconds of a start.
        """
        if self._process is None:
            if time.monotonic() < self._start_again_at:
                return None
            self.restarts += 1
            self.start()
            return f"{self.name} started again (process {self.pid})"
        status = status_of(self._process.pid)
        return None if status is None else self._bury(status)

    def _bury(self, status: int) -> str:
        """Clears away what the dead child left in its group, and decides when to start it again."""
        self._forget()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        lived = time.monotonic() - self._started_at
        self._quick_deaths = self._quick_deaths + 1 if lived < QUICK_DEATH_SECONDS else 0
        if self._quick_deaths >= QUICK_DEATHS_ALLOWED:
            raise ChildFailed(f"{self.name} {how}, {self._quick_deaths} times within seconds of its start")
        pause = min(0.5 * 2**self._quick_deaths, LONGEST_BACKOFF_SECONDS)
        self._start_again_at = time.monotonic() + pause
        return f"{self.name} {how}; starting it again in {pause:g} s"

    def _forget(self) -> None:
        """Kills the group before it reaps the leader: after that the system may give their id to a stranger's."""
        assert self._process is not None
        pid = self._process.pid
        kill_group(pid, signal.SIGKILL)  # members of the group that outlived its leader would hold its port
        self._process.wait()
        self.guard.note(f"-{pid}")
        self._process = None

    def send(self, signum: int) -> None:
        """To the child alone, not to its group: uvicorn and Celery pass a stop on to their own children in order."""
        if self._process is not None:
            os.kill(self._process.pid, signum)  # `send_signal` would reap it

    def running(self) -> bool:
        return self._process is not None and status_of(self._process.pid) is None

    def end(self) -> None:
        """Kills what is left of the child and its group, and reaps it."""
        if self._process is not None:
            self._forget()
