"""One job on several processes: gloo on this machine's cores stands for GPUs, and runs the same code."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.config import ConfigError
from models.generator import load_generator
from models.randomness import sample_latents
from tests.worker.runs import config, events, means, newest, prepare, run_here, state, write_run
from worker.trainer import parallel
from worker.trainer.launcher import launch
from worker.trainer.parallel import Ranks, joined, of_each


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


def drawn(run_dir: Path) -> npt.NDArray[np.uint8]:
    """Eight images of the newest snapshot."""
    generator = load_generator(newest(run_dir))
    labels = np.arange(8) % len(generator.info.classes) if generator.info.conditional else None
    return generator.generate(sample_latents(range(8), generator.info.z_dim), labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": {"family": "r3gan", "width": 16}, "loss": "relativistic", "penalties": {"r2_gamma": 1.0, "every": 1},
         "augment": {"kind": "ada"}},
        {"network": {"conditional": False, "components": 3}, "augment": {"kind": "ada", "flip": True}},
    ],
    ids=["batch normalisation and lazy R1", "a paired loss, R1 and R2, ada", "components and mirror images"],
)  # fmt: skip
def test_two_processes_compute_what_one_does(tmp_path: Path, data: Path, changes: dict) -> None:
    """The same losses at every tick and, for the same seeds, the same images, to the rounding of sums in another order."""
    short = {"budget": {"examples": 48}, "schedule": {"tick": 8, "checkpoint": 48}, **changes}
    runs = run_here(tmp_path / "alone", data, **short), together(tmp_path / "shared", data, 2, **short)
    alone, shared = map(means, runs)
    assert shared.keys() == alone.keys()
    for seen, numbers in alone.items():
        assert shared[seen] == pytest.approx(numbers, rel=2e-3, abs=2e-4)
    one, two = (drawn(run).astype(int) for run in runs)
    assert np.abs(one - two).max() <= 1


def test_going_on_with_another_number_of_processes_is_said(tmp_path: Path, data: Path) -> None:
    """A run of one process goes on with two, to its end, with a warning that it is not exact any more."""
    run = run_here(tmp_path, data, stop_after=3, budget={"examples": 48})
    together(run, data, 2, budget={"examples": 48})
    assert [event["data"]["code"] for event in events(run, "warning")] == ["engine_changed"]
    assert events(run)[-1]["kind"] == "finished"
    assert int(newest(run).name) == 48


def test_all_processes_go_back_together(tmp_path: Path, data: Path) -> None:
    """Numbers that blew up in one and stayed would reach the others with the next gradient."""
    wild = {"optimizer": {"generator_lr": 0.3, "discriminator_lr": 0.3}, "budget": {"examples": 960}}
    run = together(tmp_path, data, 2, schedule={"tick": 40, "checkpoint": 200}, **wild)
    assert "rolled_back" in [event["data"]["code"] for event in events(run, "warning")]
    assert events(run)[-1]["kind"] == "finished"
    assert all(weights.isfinite().all() for weights in state(run)["G"].values())


def test_ranks_share_a_batch_in_order() -> None:
    """Together they cover the batch's examples, each once."""
    shares = [Ranks(rank, 4).share(100, 64) for rank in range(4)]
    assert shares == [(100, 16), (116, 16), (132, 16), (148, 16)]


def test_batch_normalisation_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """Outputs, running moments and gradients, also the second ones, are torch's on all examples, far from zero as well."""
    assert launch(tmp_path, 2, lambda: False, [sys.executable, "-m", "tests.worker.trainer.normalising_rank"]) == 0


@pytest.mark.parametrize(("asked", "processes", "each"), [(4, 2, 2), (3, 2, 1), (1, 4, 1), (4, 1, 4), (8, 2, 8)])
def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch, asked: int, processes: int, each: int) -> None:
    """At least one for each process; more than the machine has stay, to be refused."""
    monkeypatch.setattr(parallel, "available_cores", lambda: 4)
    assert of_each(config(threads=asked), processes).threads == each


def test_threads_that_nobody_asked_for_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch would take is shared as well."""
    monkeypatch.setattr(parallel, "available_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert of_each(config(threads=None), 2).threads == 2


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on a machine of one GPU are told so before anything waits for anybody."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ConfigError, match="2 processes need a GPU each, and there are 1"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(joined())
