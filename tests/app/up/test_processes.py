"""Children, their guard and the lock of a data directory, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.up import processes
from app.up.datalock import DataDirectoryHeld, hold
from app.up.guard import process_exists
from app.up.processes import Child, ChildFailed, Guard
from tests.servers import wait_until

pytestmark = pytest.mark.alone

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
# Forks a grandchild into the same group, prints nothing, and waits.
FAMILY = [sys.executable, "-c", "import os, time; os.fork(); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"]


def members(pgid: int) -> list[int]:
    """The live processes of a group: zombies, whose parent only has not looked yet, do not count."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, group, state in rows if int(group) == pgid and not state.startswith("Z")]


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard(grace_seconds=1.0)
    yield guard
    guard.close()


def make_child(guard: Guard, command: list[str]) -> Child:
    return Child("The child", command, dict(os.environ), guard)


def test_dead_child_is_started_again(guard: Guard) -> None:
    """A killed child comes back as a new process, and the user is told of its death and of its return."""
    child = make_child(guard, SLEEPER)
    child.start()
    first = child.pid
    child.send(signal.SIGKILL)
    news: list[str | None] = []
    wait_until(lambda: news.append(child.tend()) or child.restarts == 1)
    told = [line for line in news if line]
    assert told[0].startswith("The child was killed by SIGKILL; starting it again in")
    assert told[1].startswith("The child started again")
    assert child.pid not in {None, first}
    child.end()


def test_group_of_dead_child_is_cleared(guard: Guard) -> None:
    """What a dead leader leaves in its group is killed before a new one starts: it would hold the port."""
    child = make_child(guard, FAMILY)
    child.start()
    assert child.pid is not None
    pgid = child.pid
    wait_until(lambda: len(members(pgid)) == 2)
    child.send(signal.SIGKILL)
    wait_until(lambda: child.tend() is not None)
    wait_until(lambda: members(pgid) == [])


def test_child_that_keeps_dying_is_given_up(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick deaths in a row end in one clear error instead of going on for ever."""
    monkeypatch.setattr(processes, "LONGEST_BACKOFF_SECONDS", 0.05)
    child = make_child(guard, [sys.executable, "-c", "raise SystemExit(3)"])
    child.start()

    def tend_for_ever() -> bool:
        child.tend()
        return False

    with pytest.raises(ChildFailed, match=r"The child ended with status 3, 4 times"):
        wait_until(tend_for_ever)


def test_secret_goes_in_by_stdin(guard: Guard, tmp_path: Path) -> None:
    """What a child is told on its standard input arrives whole, and again after a restart."""
    program = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'told')!r}).open('a').write(sys.stdin.read())"
    child = Child("The child", [sys.executable, "-c", program], dict(os.environ), guard, stdin="requirepass s3cret\n")
    child.start()
    wait_until(lambda: (child.tend(), child.restarts)[1] == 1 and not child.running())
    child.end()
    assert (tmp_path / "told").read_text() == "requirepass s3cret\n" * 2


def test_guard_ends_children_of_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the parent ends its children, also one that ignores SIGTERM and one that forked."""
    program = f"""
import os, time
from app.up.processes import Child, Guard
guard = Guard(0.5)
children = [Child("c", command, dict(os.environ), guard) for command in {[FAMILY, STUBBORN]!r}]
for child in children:
    child.start()
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        groups = [int(pid) for pid in parent.stdout.readline().split()]
        wait_until(lambda: len(members(groups[0])) == 2)
        parent.kill()
    wait_until(lambda: not any(members(group) for group in groups))


def test_data_directory_has_one_holder(tmp_path: Path) -> None:
    """A second holder is refused at once while the first lives, with its pid and the directory in the message."""
    with hold(tmp_path / "data", patience_seconds=30, say=print):
        began = time.monotonic()
        with pytest.raises(DataDirectoryHeld, match=rf"data is in use by another ganvil up \(process {os.getpid()}\)"):
            hold(tmp_path / "data", patience_seconds=30, say=print).__enter__()
        assert time.monotonic() - began < 5
    with hold(tmp_path / "data", patience_seconds=0, say=print):
        pass


def test_holder_that_died_is_waited_out(tmp_path: Path) -> None:
    """After kill -9 of the holder, the next one says so in one line and waits until the guard has ended the children."""
    program = f"""
import os, time
from pathlib import Path
from app.up.datalock import hold
from app.up.processes import Child, Guard
with hold(Path({str(tmp_path)!r}), patience_seconds=0, say=print) as lock:
    guard = Guard(0.5, keep_open=[lock])
    child = Child("c", {STUBBORN!r}, dict(os.environ), guard)
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        parent.kill()
    said: list[str] = []
    with hold(tmp_path, patience_seconds=10, say=said.append):
        (line,) = said
        assert f"(process {parent.pid}) was killed: waiting" in line
        assert "at most 10 s" in line
        wait_until(lambda: not members(orphan), seconds=0.5)
        assert not process_exists(parent.pid)
