"""A run that was killed anywhere and goes on ends in the same bits as one that was left alone."""

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.worker.dying_trainer import POINTS
from tests.worker.runs import assert_same_end, events, newest, prepare, run_here, start, write_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return run_here(tmp_path_factory.mktemp("undisturbed"), data)


@pytest.mark.parametrize("point", list(POINTS))
def test_a_killed_run_goes_on_exactly(tmp_path: Path, data: Path, undisturbed: Path, point: str) -> None:
    """SIGKILL at this point, then the rest: the same generator file, state, pictures and metrics."""
    run = write_run(tmp_path / "run", data)
    with start(run, point, module="tests.worker.dying_trainer") as dying:
        assert dying.wait(timeout=60) == -signal.SIGKILL
    run_here(run, data)
    assert events(run, "started")[-1]["data"]["resumed"]
    assert_same_end(run, undisturbed)
    assert not list((run / "checkpoints").glob(".*"))


def test_the_program_goes_on_after_it_was_stopped(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    """SIGTERM: the program checkpoints, says "stopped", exits 0; started again it ends in the same bits, as a process too."""
    run = write_run(tmp_path / "run", data)
    with start(run, module="tests.worker.held_trainer") as program:
        wait_for(run, "metrics")
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=60) == 0
    last = events(run)[-1]
    assert last["kind"] == "stopped"
    assert int(newest(run).name) == last["examples_seen"]
    with start(run) as program:
        assert program.wait(timeout=60) == 0
    assert events(run)[-1]["kind"] == "finished"
    assert_same_end(run, undisturbed)


def test_the_program_stops_when_its_parents_pipe_ends(tmp_path: Path, data: Path) -> None:
    """The end of the inherited pipe is a request to stop, however the parent died."""
    run = write_run(tmp_path / "run", data, budget={"examples": 800_000}, schedule={"tick": 80, "grid": 10**9})
    read, write = os.pipe()
    with start(run, "--stop-fd", str(read), pass_fds=(read,)) as program:
        os.close(read)
        wait_for(run, "metrics")
        os.close(write)
        assert program.wait(timeout=60) == 0
    assert events(run)[-1]["kind"] == "stopped"
    assert int(newest(run).name) == events(run)[-1]["examples_seen"]


def wait_for(run: Path, kind: str) -> None:
    deadline = time.monotonic() + 60
    while not ((run / "events.jsonl").exists() and events(run, kind)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("stop_after", [1, 5, 6, 17, 29])
def test_a_stopped_run_goes_on_exactly(tmp_path: Path, data: Path, undisturbed: Path, stop_after: int) -> None:
    """Stopped after any step, off and on the schedule, lazy penalty due or not, the run ends in the same bits."""
    run = run_here(tmp_path, data, stop_after=stop_after)
    assert events(run)[-1]["kind"] == "stopped"
    assert int(newest(run).name) == stop_after * 8
    assert_same_end(run_here(run, data), undisturbed)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"family": "mlp"}, "loss": "minimax", "budget": {"examples": 96}, "schedule": {"checkpoint": 32}},
        {"precision": "bf16"},
        {"network": {"conditional": False}, "ema": {"half_life": 0}, "batch_size": 7},
        {"network": {"family": "r3gan", "width": 16, "class_dropout": 0.3}, "loss": "relativistic", "budget": {"examples": 96},
         "penalties": {"r2_gamma": 1.0, "every": 1}, "micro_batch": 4},
        {"network": {"family": "vae"}, "budget": {"examples": 96}},
        {"augment": {"kind": "ada", "speed": 100}, "budget": {"examples": 96}},
        {"optimizer": {"generator_lr": {"start": 1e-3, "end": 1e-4}, "beta2": {"start": 0.9, "end": 0.99, "over": 60}}},
    ],
    ids=["mlp", "bf16", "unconditional", "r3gan in parts", "vae", "ada", "ramps"],
)  # fmt: skip
def test_every_kind_of_run_goes_on_exactly(tmp_path: Path, data: Path, changes: dict) -> None:
    """Other families, bf16, no labels and no average resume as exactly; a batch that does not divide the data set too, and
    what has a state of its own: hidden classes, batches taken in parts, ada's probability, numbers that change."""
    reference = run_here(tmp_path / "reference", data, **changes)
    run = run_here(tmp_path / "run", data, stop_after=7, **changes)
    assert_same_end(run_here(run, data, **changes), reference)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    """A state that was cut short is set aside with a warning, and the run still ends in the same bits."""
    run = run_here(tmp_path, data, stop_after=20)
    state = newest(run) / "state.pt"
    state.write_bytes(state.read_bytes()[:5000])
    run_here(run, data)
    assert events(run, "warning")[-1]["data"]["code"] == "checkpoint_damaged"
    assert events(run, "started")[-1]["examples_seen"] == 144
    assert_same_end(run, undisturbed)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    """Started again, it says so and changes nothing."""
    run = shutil.copytree(undisturbed, tmp_path / "run")
    run_here(run, data)
    assert [event["kind"] for event in events(run)[-2:]] == ["started", "finished"]
    assert_same_end(run, undisturbed)


def test_a_field_newer_than_the_checkpoint_is_no_change(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    """A checkpoint of a release that knew fewer options goes on with their defaults, to the same bits."""
    run = run_here(tmp_path, data, stop_after=12)
    path, manifest = newest(run) / "state.pt", newest(run) / "model.json"
    document = torch.load(path, weights_only=True)
    del document["config"]["optimizer"]
    torch.save(document, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"state_sha256": digest}), encoding="utf-8")
    assert_same_end(run_here(run, data), undisturbed)


def test_a_longer_budget_goes_on_from_the_end(tmp_path: Path, data: Path, undisturbed: Path) -> None:
    """Raising the budget of a stopped run gives what that budget would have given from the start."""
    run = run_here(tmp_path, data, budget={"examples": 160})
    assert_same_end(run_here(run, data, budget={"examples": 240}), undisturbed)
