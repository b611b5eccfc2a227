"""What a run says of itself: evaluations, verdicts and early ends, each provoked on purpose by real training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from models.config import ConfigError
from models.manifest import read_info
from tests.worker.runs import assert_same_end, events, newest, prepare, run_here, start, state, write_run
from worker.evaluation.evaluator import Evaluator
from worker.evaluation.samples import Draw
from worker.trainer import evaluations
from worker.trainer.failure import TrainingFailed

MEASURED: dict[str, Any] = {
    "evaluation": {"samples": 96},
    "schedule": {"tick": 40, "grid": 10**6, "checkpoint": 320, "evaluation": 320},
    "optimizer": {"generator_lr": 1e-3, "discriminator_lr": 1e-3},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"), n=200)


def verdicts(run: Path) -> list[str]:
    return [event["data"]["verdict"] for event in events(run, "verdict")]


def test_a_healthy_run_is_called_healthy(tmp_path: Path, data: Path) -> None:
    """Evaluated with each checkpoint, whose file carries the numbers; one verdict, with sentences and figures."""
    run = run_here(tmp_path, data, **MEASURED, budget={"examples": 1600})
    reports = events(run, "evaluation")
    assert [event["examples_seen"] for event in reports] == [320, 640, 960, 1280, 1600]
    assert set(verdicts(run)) == {"healthy"}
    said = events(run, "verdict")[0]["data"]
    assert said["message"].startswith("Too early to tell")
    assert {"kid", "coverage", "spread"} <= said["figures"].keys()
    assert [event["data"]["kid"] for event in events(run, "checkpoint")] == [event["data"]["kid"] for event in reports]
    assert read_info(newest(run)).metrics["coverage"] == reports[-1]["data"]["coverage"]


def test_a_learning_rate_of_1_diverges(tmp_path: Path, data: Path) -> None:
    """It is rolled back twice, each time with half the rate, and fails with a reason that a person understands."""
    wild = MEASURED | {"optimizer": {"generator_lr": 1.0, "discriminator_lr": 1.0}}
    with pytest.raises(TrainingFailed, match="half the learning rates") as caught:
        run_here(tmp_path, data, **wild, budget={"examples": 8000})
    assert caught.value.code == "diverged"
    rolled = [event for event in events(tmp_path, "warning") if event["data"]["code"] == "rolled_back"]
    assert len(rolled) == 2
    assert verdicts(tmp_path).count("diverged") == 3
    assert verdicts(tmp_path)[-1] == "diverged"


def test_a_run_goes_on_after_a_rollback_and_resumes_exactly(tmp_path: Path, data: Path) -> None:
    """Once its settings are gentle enough it ends; killed and resumed on the way, in the same bits."""
    wild: dict[str, Any] = MEASURED | {
        "optimizer": {"generator_lr": 0.3, "discriminator_lr": 0.3},
        "budget": {"examples": 960},
    }
    whole = run_here(tmp_path / "whole", data, **wild)
    assert "rolled_back" in [event["data"]["code"] for event in events(whole, "warning")]
    assert events(whole)[-1]["kind"] == "finished"
    parts = run_here(tmp_path / "parts", data, stop_after=70, **wild)
    assert_same_end(run_here(parts, data, **wild), whole)


def test_a_run_that_diverges_in_its_last_steps_fails(tmp_path: Path, data: Path) -> None:
    """What it would go back to has not come to its end."""
    wild = MEASURED | {"optimizer": {"generator_lr": 10.0, "discriminator_lr": 10.0}}
    with pytest.raises(TrainingFailed, match="train for longer"):
        run_here(tmp_path, data, **wild, budget={"examples": 40})
    assert verdicts(tmp_path) == ["diverged"]


def test_a_run_that_blows_up_between_two_ticks_goes_back_when_it_is_stopped(tmp_path: Path, data: Path) -> None:
    """It saves what it went back to, so that the next run does not come there again; the third time fails it."""
    wild: dict[str, Any] = {
        "optimizer": {"generator_lr": 10.0, "discriminator_lr": 10.0},
        "schedule": {"tick": 10**6, "grid": 10**6, "checkpoint": 10**6},
        "budget": {"examples": 10**6},
    }
    for rollbacks in (1, 2):
        run_here(tmp_path, data, stop_after=60, **wild)
        assert events(tmp_path)[-1]["kind"] == "stopped"
        assert state(tmp_path)["rollbacks"] == rollbacks
        assert all(weights.isfinite().all() for weights in state(tmp_path)["G"].values())
    with pytest.raises(TrainingFailed, match="2 times") as caught:
        run_here(tmp_path, data, stop_after=60, **wild)
    assert caught.value.code == "diverged"


def test_a_run_that_is_stopped_in_its_last_evaluation_makes_it_up(tmp_path: Path, data: Path) -> None:
    """It is not finished before; then all is as if nothing had happened: the checkpoint has its numbers, and may be the best."""
    changes = MEASURED | {"budget": {"examples": 96}, "schedule": {"tick": 48, "checkpoint": 48}}
    run_here(tmp_path / "run", data, stop_after=12, **changes)
    assert events(tmp_path / "run")[-1]["kind"] == "stopped"
    assert read_info(newest(tmp_path / "run")).metrics["kid"] is None
    run_here(tmp_path / "run", data, **changes)
    run_here(tmp_path / "undisturbed", data, **changes)
    assert [event["kind"] for event in events(tmp_path / "run")[-3:]] == ["verdict", "checkpoint", "finished"]
    assert_same_end(tmp_path / "run", tmp_path / "undisturbed")
    kids = [read_info(newest(tmp_path / run)).metrics["kid"] for run in ("run", "undisturbed")]
    assert kids[0] == kids[1] == events(tmp_path / "run", "checkpoint")[-1]["data"]["kid"]


def test_an_evaluation_brings_a_checkpoint(tmp_path: Path, data: Path) -> None:
    """Else what was measured could be neither published nor gone back to."""
    schedule = {"tick": 48, "checkpoint": 96, "evaluation": 40}
    run = run_here(tmp_path, data, **MEASURED | {"budget": {"examples": 96}, "schedule": schedule})
    saved = {event["examples_seen"]: event["data"]["kid"] for event in events(run, "checkpoint")}
    assert saved == {event["examples_seen"]: event["data"]["kid"] for event in events(run, "evaluation")}
    assert list(saved) == [40, 80, 96]


def test_an_evaluation_that_takes_too_long_is_left_out(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a warning; training goes on to its end."""
    monkeypatch.setattr(evaluations, "LONGEST_SECONDS", 0.0)
    run_here(
        tmp_path, data, **MEASURED | {"budget": {"examples": 96}, "schedule": {"checkpoint": 48, "evaluation": 48}}
    )
    warnings = [event["data"] for event in events(tmp_path, "warning")]
    assert [warning["code"] for warning in warnings] == ["evaluation_left_out"]
    assert "Lower evaluation.samples" in warnings[0]["message"]
    assert events(tmp_path, "evaluation") == []
    assert events(tmp_path)[-1]["kind"] == "finished"


@pytest.mark.parametrize(("patience", "tries"), [(0.0, 2), (60.0, 3)])
def test_an_evaluation_that_is_interrupted_again_is_given_up(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, patience: float, tries: int
) -> None:
    """Where the runs of a job are shorter than it takes, it is left out; one that was just begun is made up."""
    monkeypatch.setattr(evaluations, "PATIENCE_SECONDS", patience)
    changes = MEASURED | {"budget": {"examples": 96}, "schedule": {"checkpoint": 48, "evaluation": 48}}
    begun: list[int] = []
    evaluate = Evaluator.evaluate

    def counted(self: Evaluator, draw: Draw) -> dict[str, Any]:
        begun.append(1)
        return evaluate(self, draw)

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    run_here(tmp_path, data, stop_after=6, **changes)  # asked after 48 examples: in the midst of the evaluation
    for _ in range(2):
        run_here(tmp_path, data, stop_after=0, **changes)
    assert len(begun) == tries
    assert len(events(tmp_path, "warning")) == 3 - tries
    run_here(tmp_path, data, **changes)
    assert [event["examples_seen"] for event in events(tmp_path, "evaluation")] == ([48, 96] if tries == 3 else [96])


def blind(snapshot: Path, to: Path) -> Path:
    """A copy of a snapshot whose generator does not look at z."""
    to.mkdir()
    weights = safetensors.torch.load_file(snapshot / "generator.safetensors")
    weights["base.weight"][:, :8] = 0  # z comes before the embedding of the class
    (to / "generator.safetensors").write_bytes(safetensors.torch.save(weights))
    (to / "model.json").write_bytes((snapshot / "model.json").read_bytes())
    return to


@pytest.mark.parametrize("conditional", [True, False])
def test_a_generator_whose_z_is_cut_off_is_called_collapsed(tmp_path: Path, data: Path, conditional: bool) -> None:
    """It makes one image, or one a class; the sentence says so in words and figures."""
    network = {"conditional": conditional}
    trained = run_here(tmp_path / "trained", data, **MEASURED, budget={"examples": 640}, network=network)
    cut = blind(newest(trained), tmp_path / "blind")
    still: dict[str, Any] = {"optimizer": {"generator_lr": 1e-12, "discriminator_lr": 1e-12}, "batch_size": 200}
    schedule = {"tick": 10_000, "grid": 10**6, "checkpoint": 10_000}
    run = run_here(tmp_path / "run", data, initial=cut, **MEASURED | still | {"schedule": schedule},
                   budget={"examples": 10_000}, network=network)  # fmt: skip
    assert verdicts(run) == ["collapsed"]
    said = events(run, "verdict")[0]["data"]
    assert "alike" in said["message"]
    assert said["figures"]["spread"] < 0.1


@pytest.mark.parametrize("n", [1, 40])
def test_data_of_one_image_ends_in_a_plateau(tmp_path: Path, n: int) -> None:
    """There is nothing to learn but the one, however often it is there: said at the first evaluation. A run goes on until it has
    learned it, which of a single one nothing tells.
    """
    data = prepare(tmp_path / "data", n=n, classes=0)
    examples = np.load(data / "examples.npy")
    np.save(data / "examples.npy", np.repeat(examples[:1], n, axis=0))
    alone: dict[str, Any] = MEASURED | {
        "batch_size": min(n, 8),
        "network": {"conditional": False},
        "stopping": {"on_plateau": True},
    }
    run = run_here(tmp_path / "run", data, **alone, budget={"examples": 960})
    assert verdicts(run) == ["plateaued"]
    assert "nothing to learn but this one" in events(run, "verdict")[0]["data"]["message"]
    assert events(run)[-1]["kind"] == "finished"
    assert events(run)[-1]["examples_seen"] == 960


@pytest.mark.parametrize("shape", [(1, 1), (2, 1)])
def test_images_of_a_pixel_end_in_a_clear_state(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The fully connected family trains on them, and its samples are measured."""
    data = prepare(tmp_path / "data", 60, *shape, classes=0)
    tiny: dict[str, Any] = MEASURED | {"network": {"family": "mlp", "conditional": False}}
    run = run_here(tmp_path / "run", data, **tiny, budget={"examples": 320})
    assert events(run)[-1]["kind"] == "finished"
    assert events(run, "evaluation")[0]["data"]["kid"] is not None


def test_features_that_cannot_be_had_are_refused_before_the_first_step(tmp_path: Path, data: Path) -> None:
    """These data were prepared without a classifier."""
    with pytest.raises(ConfigError, match="no classifier"):
        run_here(tmp_path, data, evaluation={"samples": 64, "features": "classifier"})
    assert events(tmp_path, "metrics") == []


def test_a_run_ends_at_the_kid_that_was_asked_for(tmp_path: Path, data: Path) -> None:
    """With a checkpoint there, which is its result; going on from it ends at once."""
    early: dict[str, Any] = MEASURED | {"stopping": {"kid": 10.0}, "budget": {"examples": 3200}}
    run = run_here(tmp_path, data, **early)
    assert events(run)[-1]["kind"] == "finished"
    assert newest(run).name == "000000000320"
    run_here(run, data, **early)
    assert events(run)[-1]["kind"] == "finished"
    assert newest(run).name == "000000000320"


def test_evaluation_leaves_training_alone(tmp_path: Path, data: Path) -> None:
    """With and without it the networks end in the same bits."""
    short = {"budget": {"examples": 320}, "schedule": {"checkpoint": 160}}
    measured = run_here(tmp_path / "measured", data, **short, evaluation={"samples": 64})
    silent = run_here(tmp_path / "silent", data, **short)
    states = [torch.load(newest(run) / "state.pt", weights_only=True) for run in (measured, silent)]
    for name in ("G", "D", "G_ema"):
        assert all(torch.equal(states[0][name][key], states[1][name][key]) for key in states[0][name])


def test_a_run_starts_from_another_model(tmp_path: Path, data: Path) -> None:
    """Its first picture is the other's last one; with the training state beside it the discriminator comes along too."""
    first = run_here(tmp_path / "first", data, budget={"examples": 240}, schedule={"grid": 80, "checkpoint": 240})
    run = write_run(tmp_path / "run", data, budget={"examples": 8})
    (run / "initial").symlink_to(newest(first))
    document = json.loads((run / "run.json").read_text()) | {"initial": "initial"}
    (run / "run.json").write_text(json.dumps(document))
    with start(run) as program:
        assert program.wait(timeout=60) == 0
    begun, ended = run / "grids" / "000000000000.png", first / "grids" / "000000000240.png"
    assert begun.read_bytes() == ended.read_bytes()
    assert events(run, "log")[0]["data"]["discriminator"] is True
    assert events(run, "warning") == []


def test_what_does_not_fit_the_other_model_begins_anew(tmp_path: Path, data: Path) -> None:
    """Other classes have other tables: a warning names what was left out."""
    first = run_here(tmp_path / "first", data, budget={"examples": 80})
    other = prepare(tmp_path / "other", classes=5)
    run = run_here(tmp_path / "run", other, initial=newest(first), budget={"examples": 8})
    said = events(run, "warning")[0]["data"]
    assert said["code"] == "initial_partly"
    assert "embedding" in said["message"]
    assert np.isfinite(events(run, "metrics")[-1]["data"]["loss_d"])


def test_a_model_of_another_family_is_refused(tmp_path: Path, data: Path) -> None:
    """With its name."""
    first = run_here(tmp_path / "first", data, budget={"examples": 8}, network={"family": "mlp"})
    with pytest.raises(TrainingFailed, match="is a mlp, and this config asks for dcgan"):
        run_here(tmp_path / "run", data, initial=newest(first), budget={"examples": 8})
