"""Small training runs for tests: prepared data, a config, a run directory, the program."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import catalog
from models.catalog import parse_config
from models.config import TrainingConfig
from worker.data.prepared import open_data
from worker.runlog import RunLog
from worker.trainer.loop import train

CONFIG: dict[str, Any] = {
    "network": {"family": "dcgan", "z_dim": 8, "width": 4, "conditional": True},
    "loss": "non_saturating",
    "penalties": {"r1_gamma": 1.0, "every": 4},
    "ema": {"half_life": 200},
    "batch_size": 8,
    "precision": "fp32",
    "threads": 1,
    "budget": {"examples": 240},
    "schedule": {"tick": 40, "grid": 80, "checkpoint": 48},
    "evaluation": {"samples": 0},
    "seed": 3,
}


def prepare(folder: Path, n: int = 50, height: int = 8, width: int = 8, channels: int = 1, classes: int = 3) -> Path:
    """A prepared data set of bright squares on a dark ground, one corner a class."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(n) % classes if classes else np.full(n, -1)
    examples = np.random.default_rng(0).integers(0, 80, (n, height, width, channels)).astype(np.uint8)
    for example, label in zip(examples, labels, strict=True):
        example[: height // 2, 2 * max(label, 0) : 2 * max(label, 0) + 3] += 150
    np.save(folder / "examples.npy", examples)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    about = {
        "examples": n,
        "height": height,
        "width": width,
        "channels": channels,
        "classes": [{"name": f"class {c}", "count": int((labels == c).sum())} for c in range(classes)],
        "sha256": f"{n}{height}{width}{channels}{classes}",
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def config(**changes: Any) -> TrainingConfig:
    """CONFIG with some sections changed key by key."""
    document = dict(CONFIG)
    for key, value in changes.items():
        replaces = key in {"budget", "schedule"} or not isinstance(value, dict)
        document[key] = value if replaces else {**document.get(key, {}), **value}
    if changes.get("network", {}).get("family", "dcgan") != "dcgan" and "width" not in changes["network"]:
        document["network"].pop("width")
    if catalog.FAMILIES[document["network"]["family"]].game == "variational":
        document.pop("penalties")  # there is no discriminator
    return parse_config(document)


def write_run(run_dir: Path, data: Path, **changes: Any) -> Path:
    """A run directory that is ready for the program."""
    run_dir.mkdir(parents=True, exist_ok=True)
    run = {"config": config(**changes).model_dump(mode="json"), "data": str(data)}
    (run_dir / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return run_dir


def run_here(
    run_dir: Path, data: Path, *, stop_after: int | None = None, initial: Path | None = None, **changes: Any
) -> Path:
    """Train in this process; `stop_after` so many steps, ask it to stop."""
    write_run(run_dir, data, **changes)
    asked = iter(range(10**9))
    train(
        config(**changes),
        open_data(data),
        run_dir,
        lambda: stop_after is not None and next(asked) >= stop_after,
        RunLog(run_dir / "events.jsonl"),
        initial,
    )
    return run_dir


def start(run_dir: Path, *arguments: str, module: str = "worker.trainer", **more: Any) -> subprocess.Popen[bytes]:
    """The program as a process of its own."""
    command = [sys.executable, "-m", module, str(run_dir), *arguments]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, **more)


def events(run_dir: Path, *kinds: str) -> list[dict[str, Any]]:
    """What the run logged so far, lines that a kill cut off left out."""
    found = []
    for line in (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not kinds or event["kind"] in kinds:
            found.append(event)
    return found


def newest(run_dir: Path) -> Path:
    """Its newest checkpoint."""
    return max(path for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())


def state(run_dir: Path) -> dict[str, Any]:
    """The newest checkpoint's state, without what time leaves in it."""
    document = torch.load(newest(run_dir) / "state.pt", weights_only=True)
    document.pop("elapsed_seconds")
    return document


def assert_same_end(run: Path, reference: Path) -> None:
    """Both runs ended in the same bits: the generator's file, all of the state, the pictures and the means of each tick."""
    assert newest(run).name == newest(reference).name
    generators = [(newest(folder) / "generator.safetensors").read_bytes() for folder in (run, reference)]
    assert generators[0] == generators[1]
    assert_equal(state(run), state(reference))
    for picture in (reference / "grids").iterdir():
        assert (run / "grids" / picture.name).read_bytes() == picture.read_bytes()
    assert means(run) == means(reference)


def means(run_dir: Path) -> dict[int, dict[str, float]]:
    """Losses and the like by examples_seen; a stretch that was repeated counts once."""
    timed = {"examples_per_second", "eta_seconds", "examples_total", "memory_bytes"}
    return {
        event["examples_seen"]: {key: value for key, value in event["data"].items() if key not in timed}
        for event in events(run_dir, "metrics")
    }


def assert_equal(a: Any, b: Any) -> None:
    """Equal to the bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b
