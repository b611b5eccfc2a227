"""One job on several processes: gloo on this machine's cores stands for GPUs, and runs the same code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.runs import events, means, newest, prepare, run_here, write_run
from worker.trainer.parallel import Ranks


def together(run_dir: Path, data: Path, processes: int, **changes: object) -> Path:
    """The program under torchrun."""
    write_run(run_dir, data, **changes)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", "worker.trainer", str(run_dir)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run_dir


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": {"family": "r3gan", "width": 16}, "loss": "relativistic", "penalties": {"r2_gamma": 1.0, "every": 1},
         "augment": {"kind": "ada"}},
    ],
    ids=["batch normalisation and lazy R1", "a paired loss, R1 and R2, ada"],
)  # fmt: skip
def test_two_processes_compute_what_one_does(tmp_path: Path, data: Path, changes: dict) -> None:
    """The same losses at every tick, to the rounding of sums in another order, and the same generator."""
    short = {"budget": {"examples": 48}, "schedule": {"tick": 8, "checkpoint": 48}, **changes}
    alone = means(run_here(tmp_path / "alone", data, **short))
    shared = means(together(tmp_path / "shared", data, 2, **short))
    assert shared.keys() == alone.keys()
    for seen, numbers in alone.items():
        assert shared[seen] == pytest.approx(numbers, rel=2e-3, abs=2e-4)


def test_going_on_with_another_number_of_processes_is_said(tmp_path: Path, data: Path) -> None:
    """A run of one process goes on with two, to its end, with a warning that it is not exact any more."""
    run = run_here(tmp_path, data, stop_after=3, budget={"examples": 48})
    together(run, data, 2, budget={"examples": 48})
    assert [event["data"]["code"] for event in events(run, "warning")] == ["engine_changed"]
    assert events(run)[-1]["kind"] == "finished"
    assert int(newest(run).name) == 48


def test_ranks_share_a_batch_in_order() -> None:
    """Together they cover the batch's examples, each once."""
    shares = [Ranks(rank, 4).share(100, 64) for rank in range(4)]
    assert shares == [(100, 16), (116, 16), (132, 16), (148, 16)]
