"""A trainer without a GPU on a machine that has too little memory for its batch: it says so, and is not killed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.runs import events, prepare, write_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a process is Linux's")
BATCH = 4096
ONE_STEP: dict[str, Any] = {
    "penalties": {"r1_gamma": 0},
    "batch_size": BATCH,
    "budget": {"examples": BATCH},
    "schedule": {"tick": BATCH, "grid": 10 * BATCH, "checkpoint": 10 * BATCH},
}


def train(folder: Path, spare_mib: int, **network: Any) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the log of one large step on a machine with so much memory to spare."""
    data = prepare(folder / "data", n=BATCH, classes=0)
    run_dir = write_run(folder / "run", data, network={"conditional": False, **network}, **ONE_STEP)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.worker.starved_trainer", str(run_dir), str(spare_mib * 2**20)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=120,
        check=False,
    )
    return ended.returncode, events(run_dir)


def test_a_batch_that_may_be_taken_apart_is_halved(tmp_path: Path) -> None:
    """The run says what it does, and ends as it should."""
    status, log = train(tmp_path, 300, family="mlp")
    assert (status, log[-1]["kind"]) == (0, "finished")
    assert {event["data"]["code"] for event in log if event["kind"] == "warning"} == {"micro_batch_halved"}


def test_one_that_may_not_fails_with_a_reason(tmp_path: Path) -> None:
    """Under batch normalisation the run fails, and says what to do about it."""
    status, log = train(tmp_path, 64, family="dcgan", width=64)
    assert (status, log[-1]["kind"]) == (1, "failed")
    assert log[-1]["data"]["code"] == "out_of_memory"
    assert "smaller batch_size" in log[-1]["data"]["message"]
