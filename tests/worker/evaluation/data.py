"""Small data sets to evaluate against."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.worker import runs
from worker.data.prepared import Data, open_data
from worker.evaluation.classifier import save, train_classifier
from worker.evaluation.evaluator import Draw

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def images_of(n: int, height: int, width: int, channels: int, seed: int = 0) -> Images:
    """Noise over a bright blot whose place, size and brightness vary."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (n, height, width, channels))
    down, right = random.random((n, 1, 1, 1)) * height, random.random((n, 1, 1, 1)) * width
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    size = 1 + random.random((n, 1, 1, 1)) * max(height, width) / 3
    blot = np.exp(-((y - down) ** 2 + (x - right) ** 2) / size**2) * random.integers(80, 200, (n, 1, 1, channels))
    return (images + blot).astype(np.uint8)


def prepared(folder: Path, examples: Images, labels: Labels | None = None, classes: int = 0) -> Data:
    """A prepared folder of these images, opened."""
    n, height, width, channels = examples.shape
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "examples.npy", examples)
    np.save(folder / "labels.npy", np.full(n, -1) if labels is None else labels)
    names = [{"name": f"class {c}", "count": 0} for c in range(classes)]
    about = {"examples": n, "height": height, "width": width, "channels": channels, "classes": names, "sha256": "x"}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return open_data(folder)


def with_classifier(folder: Path, n: int = 300) -> tuple[Images, Labels]:
    """A prepared folder of three classes with a classifier that was trained on it; its images and labels."""
    runs.prepare(folder, n=n, height=8, width=8, classes=3)
    data = open_data(folder)
    examples = np.asarray(data.examples)
    save(train_classifier(examples, data.labels, 3, 1, lambda _: None), folder)
    return examples, data.labels


def config(**evaluation: Any) -> Any:
    """A training config with these settings of evaluation."""
    return runs.config(evaluation=evaluation)


def drawing(images: Images, asked: Labels | None = None) -> Draw:
    """These images as the stream of samples."""

    def draw(first: int, n: int) -> tuple[Images, Labels | None]:
        places = slice(first, first + n)
        return images[places], None if asked is None else asked[places]

    return draw
