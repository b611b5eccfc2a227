"""What child processes leave behind and how they are told to stop."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.child import Lines
from worker.runlog import RunLog
from worker.stop import StopSignal


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_event_is_a_line(tmp_path: Path) -> None:
    """Kind, examples, seconds and data, in the order in which they were written."""
    log = RunLog(tmp_path / "events.jsonl")
    log.write("progress", done=1, total=2)
    log.write("metrics", 64, loss_g=0.5)
    first, second = lines(tmp_path / "events.jsonl")
    assert first["data"] == {"done": 1, "total": 2}
    assert (second["kind"], second["examples_seen"], second["data"]) == ("metrics", 64, {"loss_g": 0.5})
    assert second["elapsed_seconds"] >= first["elapsed_seconds"] >= 0


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    """NaN and infinity do not make a line that nobody can parse, however deep they lie."""
    RunLog(tmp_path / "log").write("metrics", loss=float("nan"), more={"values": [1.0, float("inf")]})
    assert lines(tmp_path / "log")[0]["data"] == {"loss": None, "more": {"values": [1.0, None]}}


def test_a_cut_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    """After a writer died in mid-line, the next one begins a line of its own."""
    (tmp_path / "log").write_text('{"kind": "metr', encoding="utf-8")
    RunLog(tmp_path / "log").write("started")
    cut, whole = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert cut == '{"kind": "metr'
    assert json.loads(whole)["kind"] == "started"


CUT_SHORT = """
import errno, resource, sys
from pathlib import Path
from worker.runlog import RunLog

path = Path(sys.argv[1])
log = RunLog(path)
log.write("first")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
try:
    log.write("cut", text="x" * 100)
except OSError as error:
    assert error.errno == errno.ENOSPC
else:
    sys.exit("a line that was cut short went unnoticed")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write("next")
"""


def test_a_disk_that_takes_half_a_line_is_full(tmp_path: Path) -> None:
    """Who writes is told, what was written swallows nothing of the next line, and a reader passes over it."""
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", CUT_SHORT, str(path)], check=True, timeout=60)
    assert [len(line) for line in path.read_bytes().splitlines()][1] == 10
    assert [line["kind"] for line in Lines(path).read()] == ["first", "next"]


def test_the_clock_goes_on_from_an_earlier_run(tmp_path: Path) -> None:
    """Seconds of earlier runs count."""
    log = RunLog(tmp_path / "log", elapsed_before=100)
    assert 100 <= log.elapsed_seconds < 110
    log.count_from(500)
    assert 500 <= log.elapsed_seconds < 510


@contextmanager
def handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_ask_to_stop() -> None:
    """SIGTERM and SIGINT turn the answer true, for good."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with handlers_kept():
            should_stop = StopSignal()
            assert not should_stop()
            os.kill(os.getpid(), number)
            assert should_stop()
            assert should_stop()


def test_the_end_of_the_pipe_asks_to_stop() -> None:
    """Bytes in the pipe mean nothing; its end does, for good."""
    read, write = os.pipe()
    with handlers_kept():
        should_stop = StopSignal(read)
        assert not should_stop()
        os.write(write, b"hello")
        assert not should_stop()
        os.close(write)
        assert should_stop()
        assert should_stop()
    os.close(read)


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """When a parent is killed the pipe that it held ends, and its child sees that."""
    child = "from worker.stop import StopSignal; import sys, time, pathlib\n"
    child += "stop = StopSignal(int(sys.argv[1]))\nprint('ready', flush=True)\n"
    child += "while not stop(): time.sleep(0.01)\nprint('stopped', flush=True)"
    parent = "import os, subprocess, sys, time\nread, write = os.pipe()\n"
    parent += "subprocess.Popen([sys.executable, '-c', sys.argv[1], str(read)], pass_fds=(read,))\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.readline() == "stopped\n"
