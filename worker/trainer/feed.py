"""What a step learns from: a function of the seed and of the examples' numbers, however many ranks and parts share a batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.augment import Augmentation
from models.config import TrainingConfig
from models.randomness import Purpose, normals, uniform_bits
from worker.data.prepared import Data
from worker.engine import Engine
from worker.trainer.parallel import Ranks


@dataclass(frozen=True)
class Batch:
    """The examples number first .. first + n - 1, or as many of them as are looked at together."""

    first: int
    real: Tensor  # float32 [n, C, H, W] in [-1, 1]
    labels: Tensor | None  # int64 [n]; the number after the last class hides the class; None when unconditional
    rows: Tensor | None  # int64 [n] of a discriminator's table of classes; None without one
    z: Tensor  # float32 [n, z_dim], standard normal, each of the component of the example beside it
    augment_real: Tensor | None  # float32 [n, k] in (0, 1)
    augment_fake: Tensor | None

    def __len__(self) -> int:
        return len(self.real)


class Feed:
    """Draws the batches of one rank."""

    def __init__(
        self, config: TrainingConfig, data: Data, engine: Engine, ranks: Ranks, augmentation: Augmentation | None
    ) -> None:
        self._config = config
        self._data = data
        self._device = engine.device
        self._ranks = ranks
        self._augmentation = augmentation
        self._last: Batch | None = None  # both networks learn from the same one, where it was not taken apart

    def parts(self, first: int, at_a_time: int) -> Iterator[Batch]:
        """The share of this rank in the batch that begins with example `first`, so many examples at a time."""
        begin, n = self._ranks.share(first, self._config.batch_size)
        for start in range(begin, begin + n, at_a_time):
            size = min(at_a_time, begin + n - start)
            if self._last is None or (self._last.first, len(self._last)) != (start, size):
                self._last = self._batch(start, size)
            yield self._last

    def noise(self, batch: Batch, values: int, purpose: Purpose) -> Tensor:
        """float32 [n, values] of standard normals, other ones than z."""
        return self._normals(batch.first, len(batch), purpose, values)

    def mix(self, batch: Batch) -> Tensor:
        """float32 [n, 1, 1, 1], uniform in (0, 1)."""
        return self._uniform(batch.first, len(batch), Purpose.PENALTY_MIX, 1)[:, :, None, None]

    def encoding(self, batch: Batch) -> Tensor:
        """float32 [n, z_dim] of standard normals: the noise of the reparametrisation."""
        return self._normals(batch.first, len(batch), Purpose.ENCODING, self._config.network.z_dim)

    def _batch(self, first: int, n: int) -> Batch:
        numbers = self._data.order(self._config.seed, first, n)
        # The file's order, channels last in memory, is the one that convolutions like.
        real = self._on_device(self._data.examples[numbers]).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self._data.mirrored:
            mirrored = self._uniform(first, n, Purpose.FLIP, 1)[:, :, None, None] < 0.5
            real = torch.where(mirrored, real.flip(3), real)
        wanted = 0 if self._augmentation is None else self._augmentation.numbers
        labels = rows = self._labels(numbers, first)
        z = normals(self._config.seed, np.arange(first, first + n), Purpose.LATENT, self._config.network.z_dim)
        if (division := self._data.division) is not None:
            classes = np.zeros_like(numbers) if labels is None else labels
            z, rows = division.latents(z, numbers, classes), division.rows(numbers, classes)
        return Batch(
            first=first,
            real=real,
            labels=self._maybe(labels),
            rows=self._maybe(rows),
            z=self._on_device(z),
            augment_real=self._uniform(first, n, Purpose.AUGMENT_REAL, wanted) if wanted else None,
            augment_fake=self._uniform(first, n, Purpose.AUGMENT_FAKE, wanted) if wanted else None,
        )

    def _labels(self, numbers: npt.NDArray[np.int64], first: int) -> npt.NDArray[np.int64] | None:
        if not self._config.network.conditional:
            return None
        labels = self._data.labels[numbers]
        if dropout := self._config.network.class_dropout:
            bits = uniform_bits(self._config.seed, np.arange(first, first + len(labels)), Purpose.CLASS_DROPOUT, 1)
            hidden = (bits[:, 0] * 2.0**-32 < dropout) | (labels < 0)
            labels = np.where(hidden, len(self._data.spec.classes), labels)
        return labels

    def _normals(self, first: int, n: int, purpose: Purpose, values: int) -> Tensor:
        return self._on_device(normals(self._config.seed, np.arange(first, first + n), purpose, values))

    def _uniform(self, first: int, n: int, purpose: Purpose, values: int) -> Tensor:
        bits = uniform_bits(self._config.seed, np.arange(first, first + n), purpose, values)
        return self._on_device(((bits + 0.5) * 2.0**-32).astype(np.float32))

    def _maybe(self, array: npt.NDArray[np.int64] | None) -> Tensor | None:
        return None if array is None else self._on_device(array)

    def _on_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        """Without waiting for a GPU: it copies from pinned memory while the host goes on."""
        tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)
