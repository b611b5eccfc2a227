"""A real `ganvil up`, as its own process tree, for tests that come from outside."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.servers import wait_until
from tests.source import HOUSE

READY_SECONDS = 60.0
QUICK = {
    "GANVIL_LEASE_SECONDS": "3",
    "GANVIL_RENEW_SECONDS": "0.5",
    "GANVIL_SWEEP_SECONDS": "0.5",
    "GANVIL_RING_SECONDS": "1",
    "GANVIL_STOP_GRACE_SECONDS": "20",
    "GANVIL_TRAINER_THREADS": "1",
}


@dataclass
class Up:
    """A running `ganvil up`; `output` is what it has said so far."""

    process: subprocess.Popen[str]
    data: Path
    output: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.output)

    @property
    def url(self) -> str:
        found = re.search(r"API +(http://\S+)/v1", self.text)
        assert found, self.text
        return found[1]

    def descendants(self) -> dict[int, str]:
        """Every live process of the tree but `up` itself, with its command line. They are in sessions of their own."""
        rows = processes()
        found = {self.process.pid}
        while more := {pid for pid, (parent, _) in rows.items() if parent in found} - found:
            found |= more
        return {pid: rows[pid][1] for pid in found - {self.process.pid}}

    def child(self, words: str) -> int:
        """The first process of the tree whose command line has these words."""
        return min(pid for pid, command in self.descendants().items() if words in command)

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(seconds)


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process that is not a zombie."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 3) for line in listing.splitlines()]
    return {int(pid): (int(parent), args) for pid, parent, state, args in rows if not state.startswith("Z")}


def processes_with(variable: str) -> dict[int, str]:
    """Command line of every live process that was started with this `NAME=value`, by itself or by an ancestor."""
    found = {}
    for pid, (_, command) in processes().items():
        with suppress(OSError):  # it has ended, or is not ours to look at
            if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[pid] = command
    return found


def environment(**more: str) -> dict[str, str]:
    """Ours, without what is for the tests alone, and quick."""
    return {name: value for name, value in os.environ.items() if name != "GANVIL_TEST_ALL"} | QUICK | more


@contextmanager
def running_up(data: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Up]:
    """`ganvil up` on a free port, ready to serve; killed at the end if the test has not stopped it."""
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(data), *arguments]
    process = subprocess.Popen(
        command, cwd=HOUSE, env=env or environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    up = Up(process, data)
    assert process.stdout is not None
    reader = threading.Thread(target=up.output.extend, args=(process.stdout,))
    reader.start()
    try:
        wait_until(lambda: "Ctrl-C stops it" in up.text or process.poll() is not None, seconds=READY_SECONDS)
        assert process.poll() is None, up.text
        yield up
    finally:
        if process.poll() is None:
            up.stop()
        reader.join(30)
        process.stdout.close()


@pytest.fixture(scope="session")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running service with a worker, which has the data set `digits`."""
    with running_up(tmp_path_factory.mktemp("live") / "data") as up:
        body = {"source": {"kind": "builtin", "name": "digits"}}
        httpx.post(f"{up.url}/v1/datasets/import", json=body).raise_for_status()
        wait_until(lambda: httpx.get(f"{up.url}/v1/datasets/digits").json()["status"] == "ready", seconds=60)
        yield up.url
