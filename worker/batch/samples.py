"""The one place where a batch touches what serves single requests: the same seeds give the same bytes here and there."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.formats import Format
from app.provenance import Provenance
from app.registry import Resolved
from app.sampling import engine
from app.sampling.loaded import Loaded


class Made(NamedTuple):
    """Some samples: uint8 [n, H, W, C], the class index of each (-1 without classes), and each as a file unless pixels are wanted."""

    images: NDArray[np.uint8]
    labels: list[int]
    files: list[bytes]


@dataclass(frozen=True)
class Maker:
    """Makes samples of one model. Safe to share between threads: forwards take turns, encoding goes on beside them."""

    model: Loaded
    resolved: Resolved
    engine: str  # digest of what decides the bits beside the model
    label: int | None  # None: each seed decides
    truncation: float
    format: Format | None
    forwards: ThreadPoolExecutor

    def make(self, seeds: Sequence[int]) -> Made:
        """As a request for these seeds gets them."""
        images, labels = self.forwards.submit(self._forward, seeds).result()
        if self.format is None:
            return Made(images, labels, [])
        provenance, classes = Provenance(self.resolved, self.format, self.engine), self.resolved.info["classes"]
        names = [None if label < 0 else classes[label] for label in labels]
        texts = [provenance.of(seed, name, self.truncation) for seed, name in zip(seeds, names, strict=True)]
        return Made(images, labels, self.format.encode_many(images, texts))

    def _forward(self, seeds: Sequence[int]) -> tuple[NDArray[np.uint8], list[int]]:
        labels = self.model.labels(seeds, None if self.label is None else np.full(len(seeds), self.label, np.int64))
        z = self.model.draw(seeds, np.full(len(seeds), self.truncation, np.float32))
        images, done = [], 0
        while done < len(seeds):
            shape = self.model.shapes.choose(len(seeds) - done)
            rows = slice(done, min(len(seeds), done + self.model.shapes.capacity[shape]))
            images.append(self.model.generate(z[rows], None if labels is None else labels[rows], shape))
            done = rows.stop
        return np.concatenate(images), [-1] * len(seeds) if labels is None else labels.tolist()


def load(
    snapshot: Path,
    resolved: Resolved,
    forwards: ThreadPoolExecutor,
    *,
    threads: int,
    label: int | None,
    truncation: float,
    format: Format | None,  # noqa: A002
) -> Maker:
    """Load the model on the one thread of `forwards`. Raises as `app.sampling.engine.load` does."""
    forwards.submit(engine.start_thread, threads).result()
    model = forwards.submit(engine.load, snapshot, resolved).result()
    digest = forwards.submit(engine.digest, threads).result()
    return Maker(model, resolved, digest, label, truncation, format, forwards)
