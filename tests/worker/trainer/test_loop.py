"""The training loop: what it makes, when, and what it leaves alone."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.catalog import FAMILIES, LOSSES
from models.config import ConfigError
from models.generator import latents, load_generator
from tests.worker.runs import config, events, means, newest, prepare, run_here, state
from worker.data.prepared import open_data
from worker.engine import choose_engine
from worker.runlog import RunLog
from worker.trainer import loop
from worker.trainer.failure import TrainingFailed
from worker.trainer.loop import train
from worker.trainer.state import State

# A variational family plays no game: its loss is its own, whatever the config says.
GAMES = [
    (name, loss) for name, spec in FAMILIES.items() for loss in (LOSSES if spec.game == "adversarial" else ["minimax"])
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return run_here(tmp_path_factory.mktemp("run"), data)


@pytest.mark.parametrize(("family", "loss"), GAMES)
@pytest.mark.parametrize("conditional", [True, False])
def test_every_family_trains_with_every_loss(
    tmp_path: Path, data: Path, family: str, loss: str, conditional: bool
) -> None:
    """A few steps move every weight of both networks, and the result can be sampled. (A bias may find its gradients cancel.)"""
    network = {"family": family, "conditional": conditional}
    chosen = {"network": network, "loss": loss, "budget": {"examples": 32}, "optimizer": {"generator_lr": 1e-3}}
    run_here(tmp_path, data, **chosen)
    before = State.initial(config(**chosen), open_data(data).spec, choose_engine(config(**chosen))).document()
    after = state(tmp_path)
    for name in ("G", "D"):
        assert all(not torch.equal(before[name][key], after[name][key]) for key in after[name] if "bias" not in key)
    generator = load_generator(newest(tmp_path))
    images = generator.generate(latents(generator.info, range(4)), np.array([0, 1, 2, 0]) if conditional else None)
    assert images.shape == (4, 8, 8, 1)
    assert generator.info.classes == (("class 0", "class 1", "class 2") if conditional else ())


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"penalties": {"gp_weight": 10.0, "every": 1}, "loss": "wasserstein"}, "gradient_penalty"),
        ({"penalties": {"r1_gamma": 1.0, "every": 2, "method": "estimate"}}, "r1"),
        ({"penalties": {"r2_gamma": 1.0, "every": 2}}, "r2"),
        ({"augment": {"kind": "diffaugment"}}, "loss_d"),
        ({"augment": {"flip": True}}, "loss_d"),
    ],
    ids=["gradient penalty", "estimate", "R2", "diffaugment", "flip"],
)
def test_what_the_config_asks_for_takes_part(tmp_path: Path, data: Path, changes: dict, figure: str) -> None:
    """Its figure is told at the ticks, finite, and is another one than without it."""
    short = {"budget": {"examples": 80}}
    plain, asked = (
        means(run_here(tmp_path / name, data, **short, **more)) for name, more in (("a", {}), ("b", changes))
    )
    assert all(np.isfinite(numbers[figure]) for numbers in asked.values())
    assert [numbers[figure] for numbers in asked.values()] != [numbers.get(figure) for numbers in plain.values()]


@pytest.mark.parametrize(
    ("height", "width", "channels", "mode"), [(8, 16, 4, "RGBA"), (12, 8, 3, "RGB"), (8, 8, 1, "L")]
)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_shapes_of_all_kinds_train(
    tmp_path: Path, family: str, height: int, width: int, channels: int, mode: str
) -> None:
    """Images that are not square and have 1, 3 or 4 channels train, and their grid is a picture of that mode."""
    data = prepare(tmp_path / "data", 20, height, width, channels)
    run = run_here(tmp_path / "run", data, network={"family": family}, budget={"examples": 16})
    with Image.open(run / "grids" / "000000000016.png") as picture:
        assert picture.mode == mode
    assert load_generator(newest(run)).info.data.width == width


def test_things_happen_on_schedule(run: Path) -> None:
    """Metrics, grids and checkpoints fall on their counts and on the end; the first grid comes before the first step."""
    assert [event["examples_seen"] for event in events(run, "metrics")] == [40, 80, 120, 160, 200, 240]
    assert [event["examples_seen"] for event in events(run, "grid")] == [0, 80, 160, 240]
    assert [event["examples_seen"] for event in events(run, "checkpoint")] == [48, 96, 144, 192, 240]
    assert events(run)[0]["kind"] == "started"
    assert events(run)[-1]["kind"] == "finished"


def test_events_carry_what_they_promise(run: Path) -> None:
    """Each kind has the keys that its readers count on, and the files that it names are there."""
    started, metrics = events(run, "started")[0]["data"], events(run, "metrics")[-1]["data"]
    assert {"fingerprint", "examples_total", "parameters", "threads", "resumed"} <= started.keys()
    assert {"device", "precision", "threads", "torch", "numpy", "isa"} == started["fingerprint"].keys()
    assert {"loss_g", "loss_d", "logits_real", "logits_fake", "examples_per_second", "eta_seconds"} <= metrics.keys()
    assert metrics["examples_total"] == 240
    assert events(run, "metrics")[0]["data"]["r1"] > 0
    for event in events(run, "grid", "checkpoint"):
        assert (run / event["data"]["path"]).exists()


def test_grid_has_a_row_for_each_class(run: Path) -> None:
    """Three classes are three rows of eight, enlarged until a person can read them."""
    with Image.open(run / "grids" / "000000000240.png") as picture:
        assert picture.size == (8 * 34 - 2, 3 * 34 - 2)


def test_the_same_run_gives_the_same_file(tmp_path: Path, data: Path, run: Path) -> None:
    """Equal config and data give a byte-identical generator, and another seed gives another."""
    again, other = run_here(tmp_path / "again", data), run_here(tmp_path / "other", data, seed=4)
    files = [(newest(folder) / "generator.safetensors").read_bytes() for folder in (run, again, other)]
    assert files[0] == files[1] != files[2]


def test_global_generators_and_settings_are_left_alone(tmp_path: Path, data: Path) -> None:
    """Training neither uses nor changes torch's and numpy's own generators, and puts torch's settings back."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    threads = torch.get_num_threads()
    run_here(tmp_path, data, budget={"examples": 32})
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert torch.tensor([1e-40]).mul(1).item() > 0


def test_snapshots_during_training_do_not_change_it(tmp_path: Path, data: Path, run: Path) -> None:
    """How often one looks makes no difference to what is learned."""
    often = run_here(tmp_path, data, schedule={"tick": 8, "grid": 8, "checkpoint": 8})
    assert (newest(often) / "generator.safetensors").read_bytes() == (
        newest(run) / "generator.safetensors"
    ).read_bytes()


def test_bf16_trains(tmp_path: Path, data: Path) -> None:
    """The bf16 path runs, keeps float32 weights, and stays near the float32 path for a few steps."""
    half = run_here(tmp_path / "half", data, precision="bf16", budget={"examples": 32})
    full = run_here(tmp_path / "full", data, precision="fp32", budget={"examples": 32})
    assert events(half, "started")[0]["data"]["fingerprint"]["precision"] == "bf16"
    for key, tensor in state(half)["G_ema"].items():
        assert tensor.dtype != torch.bfloat16
        torch.testing.assert_close(tensor.float(), state(full)["G_ema"][key].float(), rtol=0.2, atol=0.1)


def test_epochs_are_counted(tmp_path: Path, data: Path) -> None:
    """1.5 epochs of 50 are 75 examples, rounded up to whole batches of 8."""
    run = run_here(tmp_path, data, budget={"epochs": 1.5})
    assert events(run)[-1]["examples_seen"] == 80


@pytest.mark.parametrize("seconds", [1e-6, 0.01])
def test_budget_shorter_than_its_probe_still_gives_a_model(tmp_path: Path, data: Path, seconds: float) -> None:
    """A budget in seconds that is over before the speed is known ends at its first tick, with a checkpoint like any other."""
    run = run_here(tmp_path, data, budget={"seconds": seconds})
    assert [line["kind"] for line in events(run)][-2:] == ["checkpoint", "finished"]
    assert [line["examples_seen"] for line in events(run, "checkpoint", "finished")] == [16, 16]
    assert events(run, "metrics")[-1]["data"]["examples_total"] == 16


def test_a_budget_in_seconds_is_for_training(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looking at the data takes before is not taken from it, nor is it time in which the speed was measured."""
    monkeypatch.setattr(loop, "divide", lambda *_: time.sleep(3))
    run = run_here(tmp_path, data, budget={"seconds": 2.0})
    assert events(run)[-1]["examples_seen"] > 16
    assert events(run, "started")[0]["elapsed_seconds"] < 2


def test_seconds_become_a_total(tmp_path: Path, data: Path) -> None:
    """A budget in seconds is probed, and its total is kept over a stop and changed at checkpoints only."""
    budget, schedule = {"seconds": 1.0}, {"grid": 10**6, "checkpoint": 10**6}
    run = run_here(tmp_path, data, budget=budget, schedule=schedule, stop_after=200)
    run_here(run, data, budget=budget, schedule=schedule)
    totals = {event["data"]["examples_total"] for event in events(run, "metrics")} - {None}
    assert len(totals) == 1
    assert events(run)[-1]["kind"] == "finished"
    assert events(run)[-1]["examples_seen"] in totals


def test_a_budget_in_seconds_follows_the_speed(tmp_path: Path, data: Path) -> None:
    """Where something else slows a run down once its speed was measured, fewer examples are made of the same time."""
    began = time.monotonic()

    def slowed() -> bool:
        time.sleep(0.1 if time.monotonic() > began + 0.5 else 0)
        return False

    chosen = config(budget={"seconds": 2.0}, schedule={"tick": 80, "grid": 10**6, "checkpoint": 80})
    train(chosen, open_data(data), tmp_path, slowed, RunLog(tmp_path / "events.jsonl"))
    totals = [event["data"]["examples_total"] for event in events(tmp_path, "metrics")]
    first = next(total for total in totals if total)
    assert events(tmp_path)[-1]["kind"] == "finished"
    assert events(tmp_path)[-1]["examples_seen"] == totals[-1] < first


def test_divergence_is_a_failure_that_a_person_understands(tmp_path: Path, data: Path) -> None:
    """It is rolled back twice, each time more gently, and then ends the run with a verdict and no checkpoint of it."""
    with pytest.raises(TrainingFailed, match="diverged") as caught:
        run_here(tmp_path, data, optimizer={"discriminator_lr": 10.0, "generator_lr": 10.0}, loss="minimax",
                 network={"family": "mlp"}, budget={"examples": 4000}, schedule={"tick": 8, "checkpoint": 8})  # fmt: skip
    assert caught.value.code == "diverged"
    assert "learning rate" in caught.value.message
    assert events(tmp_path)[-1]["data"]["verdict"] == "diverged"
    assert [event["data"]["code"] for event in events(tmp_path, "warning")] == ["rolled_back"] * 2
    assert not (tmp_path / "checkpoints").exists()


def test_more_threads_than_cores_are_refused(tmp_path: Path, data: Path) -> None:
    """They would fight for the cores and stall the machine."""
    with pytest.raises(ConfigError, match="cores; use at most"):
        run_here(tmp_path, data, threads=1024)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path, data: Path) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigError, match="larger than the data set"):
        run_here(tmp_path, data, batch_size=51)


@pytest.mark.parametrize("changes", [{"loss": "minimax"}, {"seed": 9}, {"network": {"z_dim": 9}}])
def test_another_config_does_not_go_on_from_this_checkpoint(tmp_path: Path, data: Path, changes: dict) -> None:
    """A checkpoint is continued by its own config only; the budget, the schedule, threads and precision may change."""
    run_here(tmp_path, data, budget={"examples": 16})
    with pytest.raises(TrainingFailed, match=next(iter(changes))) as caught:
        run_here(tmp_path, data, **changes)
    assert caught.value.code == "checkpoint_mismatch"


def test_other_data_does_not_go_on_from_this_checkpoint(tmp_path: Path, data: Path) -> None:
    """The data set is part of the run."""
    run_here(tmp_path / "run", data, budget={"examples": 16})
    with pytest.raises(TrainingFailed, match="other data"):
        run_here(tmp_path / "run", prepare(tmp_path / "data", n=49))


def test_another_engine_is_a_warning(tmp_path: Path, data: Path) -> None:
    """Going on under another precision is allowed, and the account says what changed."""
    run_here(tmp_path, data, budget={"examples": 16})
    run_here(tmp_path, data, budget={"examples": 32}, precision="bf16")
    (warning,) = events(tmp_path, "warning")
    assert warning["data"]["code"] == "engine_changed"
    assert (warning["data"]["before"]["precision"], warning["data"]["now"]["precision"]) == ("fp32", "bf16")
    assert events(tmp_path)[-1]["kind"] == "finished"
