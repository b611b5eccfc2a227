"""The real images that samples are measured against, and how these lie among themselves. The same for every run that learns from the
same data and mirrors it or not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.randomness import Purpose, shuffled
from worker.data.prepared import Data
from worker.evaluation.distances import squared_distances
from worker.evaluation.features import BATCH, Features
from worker.evaluation.memorisation import Calibration, calibrate
from worker.evaluation.metrics import (
    LEAST_FOR_FID,
    Estimate,
    KernelSums,
    frechet_distance,
    kernel_shift,
    kid,
    within,
)

MOST_REAL = 10_000
MOST_NEIGHBOURS = 2_048  # on either side, where every distance between two is looked at
SEED = 0
_DRAWING = 2**32  # its place in the stream


@dataclass(frozen=True)
class Reference:
    """`rows` int64 [R] are the real images' numbers in the data, in the order they were drawn, `features` [R, d] theirs, and
    `labels` int64 [R] their classes, -1 where unknown. The first `held` are half of them, or as many as there are `samples`.
    `mirrored` [R, d] are the features of their mirror images, of a run that learns from these too.
    """

    rows: npt.NDArray[np.int64]
    features: Tensor
    labels: Tensor
    samples: int
    mirrored: Tensor | None = None

    @property
    def held(self) -> int:
        return min(self.samples, len(self.rows) // 2)

    @property
    def is_small(self) -> bool:
        """Whether half of the images are fewer than the samples."""
        return len(self.rows) < 2 * self.samples

    @property
    def compared(self) -> Tensor:
        """[m, d]: what samples are compared with. All of it when it is small; else without those that stand in for samples."""
        return self.features if self.is_small else self.features[self.held :]

    @property
    def near(self) -> Tensor:
        """[k, d], no more than there are samples: what the neighbours of samples are sought among."""
        return self.compared[: min(self.samples, MOST_NEIGHBOURS)]

    @cached_property
    def kernel(self) -> KernelSums:
        return within(self.compared, kernel_shift(self.compared))

    @cached_property
    def near_distances(self) -> Tensor:
        """[k, k], squared."""
        return squared_distances(self.near, self.near)

    @cached_property
    def kid_floor(self) -> Estimate | None:
        """KID of real images against other real images, as many as samples are compared with; None where a side has fewer than two."""
        if self.held < 2:
            return None
        of_real = None if self.is_small else self.kernel
        return kid(self.features[: self.held], self.features[self.held :], of_real)

    @cached_property
    def fid_floor(self) -> float | None:
        """FID of the same; None where a side has fewer than FID takes."""
        if self.held < LEAST_FOR_FID:
            return None
        return frechet_distance(self.features[: self.held], self.features[self.held :])

    @cached_property
    def calibration(self) -> Calibration | None:
        return calibrate(self.features, MOST_NEIGHBOURS, self.mirrored)

    @property
    def seen(self) -> Tensor:
        """[R or 2 R, d]: what training sees, which a sample may be a copy of: row i and row R + i show the same image."""
        return self.features if self.mirrored is None else torch.cat([self.features, self.mirrored])


def draw_rows(examples: int) -> npt.NDArray[np.int64]:
    """int64 [at most MOST_REAL]: the numbers of the real images, without repetition, as they come out of the hat."""
    return shuffled(SEED, _DRAWING, Purpose.SUBSET, examples)[:MOST_REAL]


def make_reference(
    data: Data, features: Features, samples: int, device: torch.device, between: Callable[[], None]
) -> Reference:
    """Draw real images and take their features. To be compared with so many samples each time. `between` is called between batches."""
    rows = draw_rows(data.spec.examples)
    embedded, mirrored = [], []
    for first in range(0, len(rows), BATCH):
        between()
        images = data.examples[rows[first : first + BATCH]]
        embedded.append(features(images))
        if data.mirrored:
            between()
            mirrored.append(features(images[:, :, ::-1]))
    labels = torch.from_numpy(data.labels[rows]).to(device)
    return Reference(rows, torch.cat(embedded), labels, samples, torch.cat(mirrored) if data.mirrored else None)
