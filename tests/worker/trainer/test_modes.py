"""Whether a generator leaves out what is rare or far off: 25 Gaussians, the classical trial of mode collapse (arXiv:1611.02163)."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.generator import load_generator
from models.presets import resolve
from models.randomness import sample_latents
from tests.worker.runs import newest
from worker.data.prepared import open_data
from worker.runlog import RunLog
from worker.trainer.loop import train

SIDE, FIRST, APART, DEVIATION = 5, 28, 50, 4  # modes a side; grey levels
SAMPLES = 2_500


@pytest.fixture(scope="module")
def gaussians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25,000 points of a grid of Gaussians, each as an image whose halves have its two coordinates as their grey."""
    folder, random, n = tmp_path_factory.mktemp("data"), np.random.default_rng(0), 25_000
    points = FIRST + APART * random.integers(0, SIDE, (n, 2)) + random.normal(0, DEVIATION, (n, 2))
    grey = np.clip(np.round(points), 0, 255).astype(np.uint8)
    np.save(folder / "examples.npy", grey[:, None, :].repeat(4, axis=1).repeat(2, axis=2)[..., None])
    np.save(folder / "labels.npy", np.full(n, -1))
    about = {"examples": n, "height": 4, "width": 4, "channels": 1, "classes": [], "sha256": "gaussians"}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.mark.parametrize("seed", [0, 1])
def test_all_of_25_gaussians_are_found(tmp_path: Path, gaussians: Path, seed: int) -> None:
    """By the preset that nobody has to choose: each by a fifth of its share or more, and nearly all samples lie in one of them."""
    data = open_data(gaussians)
    small = {"network": {"width": 16, "z_dim": 16}, "threads": 1, "evaluation": {"samples": 0}}
    config = resolve("auto", small, data.spec, budget={"examples": 30_000}, seed=seed)
    train(config, data, tmp_path, lambda: False, RunLog(tmp_path / "events.jsonl"))
    generator = load_generator(newest(tmp_path))
    images = generator.generate(sample_latents(range(SAMPLES), generator.info.z_dim)).astype(float)
    points = np.stack([images[:, :, :2].mean((1, 2, 3)), images[:, :, 2:].mean((1, 2, 3))], axis=1)
    nearest = np.clip(np.round((points - FIRST) / APART), 0, SIDE - 1)
    inside = (np.abs(points - FIRST - APART * nearest) <= 3 * DEVIATION).all(axis=1)
    counts = np.bincount((nearest[inside] @ [SIDE, 1]).astype(int), minlength=SIDE**2)
    assert (counts >= SAMPLES / SIDE**2 / 5).sum() == SIDE**2
    assert inside.mean() > 0.9
