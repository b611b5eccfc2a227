"""The processes of one run under their launcher: stopped together, and none left behind, however one of them ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.worker.runs import config, events, newest, prepare, start, write_run
from tests.worker.test_child import is_alive
from worker.trainer.launcher import launch

LONG = {
    "processes": 2,
    "budget": {"examples": 800_000},
    "schedule": {"tick": 40, "grid": 400_000, "checkpoint": 400_000},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


class Started:
    """A launcher, its ranks, and the pipe that it was told to watch."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        read_end, self.pipe = os.pipe()
        module = "worker.trainer.launcher"
        self.launcher = start(run_dir, "--stop-fd", str(read_end), module=module, pass_fds=[read_end])
        os.close(read_end)
        wait_until(lambda: (run_dir / "events.jsonl").exists() and events(run_dir, "metrics"), seconds=60)
        children = Path(f"/proc/{self.launcher.pid}/task/{self.launcher.pid}/children").read_text()
        self.ranks = [int(pid) for pid in children.split()]

    def end(self) -> int:
        """Its status, once it and its ranks are gone."""
        status = self.launcher.wait(20)
        wait_until(lambda: not any(is_alive(pid) for pid in self.ranks), seconds=20)
        return status


@contextmanager
def started(run_dir: Path) -> Iterator[Started]:
    run = Started(run_dir)
    try:
        yield run
    finally:
        for pid in [run.launcher.pid, *run.ranks]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        run.launcher.communicate(timeout=20)


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda run: run.launcher.send_signal(signal.SIGTERM), 0),
        (lambda run: os.close(run.pipe), 0),
        (lambda run: os.kill(run.ranks[1], signal.SIGTERM), 0),
        (lambda run: run.launcher.kill(), -signal.SIGKILL),
    ],
    ids=["SIGTERM", "the end of the pipe", "SIGTERM to one of them", "the launcher's death"],
)
def test_all_finish_their_step_and_end(
    tmp_path: Path, data: Path, ask: Callable[[Started], object], status: int
) -> None:
    """Asked to stop, or left alone, they agree on a step, leave one checkpoint, and end."""
    with started(write_run(tmp_path, data, **LONG)) as run:
        assert len(run.ranks) == 2
        assert {os.getpgid(pid) for pid in run.ranks} == {
            os.getpgid(run.launcher.pid)
        }  # a kill of the group reaches them
        ask(run)
        assert run.end() == status
    last = events(tmp_path)[-1]
    assert last["kind"] == "stopped"
    assert int(newest(tmp_path).name) == last["examples_seen"]
    assert not events_of_others(tmp_path)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_dies_takes_the_others_along(tmp_path: Path, data: Path, killed: int) -> None:
    """Also one that would hang; the launcher ends as the rank did, and the log calls it neither stopped nor failed."""
    with started(write_run(tmp_path, data, **LONG)) as run:
        os.kill(run.ranks[1 - killed], signal.SIGSTOP)
        os.kill(run.ranks[killed], signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    assert events(tmp_path)[-1]["kind"] not in {"failed", "stopped", "finished"}


def events_of_others(run_dir: Path) -> str:
    return (run_dir / "events.1.jsonl").read_text(encoding="utf-8")


def test_what_one_rank_failed_of_is_said_once(tmp_path: Path, data: Path) -> None:
    """Memory that runs out in one rank is the last line of the run's log."""
    write_run(tmp_path, data, **LONG)
    (tmp_path / "events.jsonl").write_text(
        '{"kind": "failed", "data": {"code": "of an earlier run"}}\n', encoding="utf-8"
    )
    program = [sys.executable, "-m", "tests.worker.trainer.failing_rank"]
    assert launch(tmp_path, 2, lambda: False, program) == 1
    assert [event["data"]["code"] for event in events(tmp_path, "failed")] == ["of an earlier run", "out_of_memory"]
    assert events(tmp_path)[-1]["kind"] == "failed"
    assert "micro_batch" not in events(tmp_path)[-1]["data"]["message"]


def test_what_all_ranks_fail_of_is_said_once(tmp_path: Path, data: Path) -> None:
    """A batch that cannot be shared evenly ends all of them; one line says so."""
    write_run(tmp_path, data, processes=2, batch_size=9)
    assert launch(tmp_path, 2, lambda: False) == 1
    (failed,) = events(tmp_path, "failed")
    assert failed["data"]["code"] == "config"
    assert "9 cannot be shared evenly by 2" in failed["data"]["message"]


def test_more_processes_than_places_are_not_started(tmp_path: Path, data: Path) -> None:
    """64 copies of torch would bring a small machine down."""
    run = write_run(tmp_path, data, processes=64, batch_size=64, budget={"examples": 64})
    assert launch(run, 64, lambda: False) == 1
    assert "64 processes need a GPU or a core each" in events(run, "failed")[0]["data"]["message"]


def test_a_trainer_starts_the_others_itself(tmp_path: Path, data: Path) -> None:
    """By hand the usual command does what the config says, and shares the threads out."""
    assert config(processes=2).threads == 1
    write_run(tmp_path, data, processes=2, budget={"examples": 24})
    command = [sys.executable, "-m", "worker.trainer", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (begin,) = events(tmp_path, "started")
    assert (begin["data"]["fingerprint"]["processes"], begin["data"]["threads"]) == (2, 1)
    assert events(tmp_path)[-1]["kind"] == "finished"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"config": {"processes": 0}}'])
def test_a_run_that_cannot_be_read_fails_with_a_clear_last_line(tmp_path: Path, content: str | None) -> None:
    """The one trainer that is started says what is wrong."""
    if content is not None:
        (tmp_path / "run.json").write_text(content, encoding="utf-8")
    done = start(tmp_path, module="worker.trainer.launcher")
    done.communicate(timeout=60)
    assert done.returncode == 1
    (failed,) = events(tmp_path)
    assert (failed["kind"], failed["data"]["code"]) == ("failed", "config")
