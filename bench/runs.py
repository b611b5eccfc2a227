"""What the benches of quality share: data from archives, runs of the real programs, samples of what they leave behind."""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.config import TrainingConfig
from models.fingerprint import fingerprint
from models.generator import load_generator
from models.machine import available_cores
from models.presets import Hardware, resolve
from models.randomness import Purpose, sample_latents, uniform_bits
from worker.data.prepared import Data, open_data

HOUSE = Path(__file__).resolve().parents[1]
CACHE = Path(tempfile.gettempdir()) / "ganvil-bench"
AT_A_TIME = 250

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Event = dict[str, Any]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """With what all of them take."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one a core")
    parser.add_argument("--cache", type=Path, default=CACHE, help="keeps prepared data and judges")
    return parser


def parse(parser: argparse.ArgumentParser, *needed: str) -> argparse.Namespace:
    """The options. Ends the program with a message where an archive is missing: none comes with the project."""
    options = parser.parse_args()
    for name in needed:
        path = getattr(options, name)
        if path is None:
            parser.error(
                f"--{name} PATH is needed: an archive with a folder of images for each class; none comes along"
            )
        if not path.is_file():
            parser.error(f"--{name}: there is no file {path}")
    torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def prepare(source: dict[str, str], folder: Path) -> Data:
    """By `python -m worker.data`, as an upload is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prepare.json").write_text(json.dumps({"source": source}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "worker.data", str(folder.resolve())], cwd=HOUSE, check=True)
    return open_data(folder)


def prepare_archive(archive: Path, cache: Path) -> Data:
    """The archive's images; prepared once for as long as it does not change."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{archive.stem}-{digest[:12]}"
    if (folder / "dataset.json").exists():
        return open_data(folder)
    return prepare({"kind": "archive", "path": str(archive.resolve())}, folder)


def prepare_images(images: Images, folder: Path) -> Data:
    """uint8 [N, H, W, C], without labels."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "upload.npz", images=images)
    return prepare({"kind": "archive", "path": str((folder / "upload.npz").resolve())}, folder)


def train(config: TrainingConfig, data: Data, run_dir: Path) -> list[Event]:
    """By `python -m worker.trainer`; what it said, whether it failed or not."""
    assert data.folder is not None
    run_dir.mkdir(parents=True)
    run = {"config": config.model_dump(mode="json"), "data": str(data.folder.resolve())}
    (run_dir / "run.json").write_text(json.dumps(run), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "worker.trainer", str(run_dir.resolve())], cwd=HOUSE, check=False)
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def last(events: list[Event], kind: str) -> Event:
    """The last event of a kind. Ends the program with what the run said where there is none."""
    found = [event for event in events if event["kind"] == kind]
    if not found:
        raise SystemExit(f"the run has no {kind}; its last word was {events[-1]}")
    return found[-1]


def took(events: list[Event]) -> dict[str, Any]:
    """Of a whole run: seconds, how many of these went into evaluations, and examples."""
    evaluating = sum(event["data"]["seconds"] for event in events if event["kind"] == "evaluation")
    end = events[-1]
    return {"seconds": end["elapsed_seconds"], "evaluating": round(evaluating, 2), "examples": end["examples_seen"]}


def draw(events: list[Event], run_dir: Path, data: Data, n: int) -> tuple[Images, Labels | None]:
    """n samples of the last snapshot, uint8 [n, H, W, C], and int64 [n] the classes asked for, as often as in the data."""
    generator = load_generator(run_dir / last(events, "checkpoint")["data"]["path"])
    z = sample_latents(range(n), generator.info.z_dim)
    asked = choose_classes(data, n) if generator.info.conditional else None
    parts = [slice(first, first + AT_A_TIME) for first in range(0, n, AT_A_TIME)]
    images = [generator.generate(z[part], None if asked is None else asked[part]) for part in parts]
    return np.concatenate(images), asked


def train_preset(
    options: argparse.Namespace, data: Data, overrides: dict[str, Any]
) -> tuple[dict[str, Any], Images, Labels | None]:
    """A run of `options.preset` for `options.seconds`: how it went, and samples of its last snapshot as `draw` gives them."""
    overrides = {"threads": options.threads, **overrides}
    budget = {"seconds": options.seconds}
    config = resolve(options.preset, overrides, data.spec, budget=budget, seed=options.seed, hardware=hardware())
    with tempfile.TemporaryDirectory() as folder:
        events = train(config, data, Path(folder) / "run")
        return {"by": options.preset, **took(events)}, *draw(events, Path(folder) / "run", data, options.samples)


def choose_classes(data: Data, n: int) -> Labels:
    """int64 [n]: drawn from the labels of the data."""
    known = data.labels[data.labels >= 0]
    bits = uniform_bits(0, np.arange(n), Purpose.SAMPLE_CLASS, 1)[:, 0].astype(np.uint64)
    chosen: Labels = known[(bits * np.uint64(len(known))) >> np.uint64(32)]
    return chosen


def hardware() -> Hardware:
    """What presets are fitted to."""
    return Hardware("cuda" if torch.cuda.is_available() else "cpu", available_cores())


def describe(threads: int) -> dict[str, Any]:
    """What the figures depend on, and the day."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = fingerprint(device, "auto", threads)
    names = {line.partition(": ")[2] for line in _cpu_lines() if line.startswith("model name")}
    return {"date": time.strftime("%Y-%m-%d"), "cpu": ", ".join(names), "cores": available_cores(), **found}


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
