"""Whether left and right mean the same in the data: whether a classifier can tell images from their mirror images.

A two-sample test by a classifier (Lopez-Paz and Oquab 2017, arXiv:1610.06545), here a linear one on fixed random features, tried on
images that it was not fitted to. Within each class, as the mirror image of one may be another.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import TrainingConfig
from models.randomness import permutation
from worker.data.prepared import Data
from worker.evaluation.features import BATCH
from worker.evaluation.random_features import random_features
from worker.trainer.division import class_of

SEED = 0
MOST = 2_000  # images that are looked at, or of many classes twice as many
LEAST = 100  # of a class: of fewer, also those that differ from their mirror images are at times not told
TOLD = 0.6  # the share of images that is told from its mirror image where left and right differ; 0.5 is chance
DEVIATIONS = 3  # by which it also is more than chance
RIDGE = 1.0


def is_mirrored(config: TrainingConfig, data: Data, before: bool | None) -> bool:
    """Whether a run mirrors half of its examples: as its config says, or as it did `before`, or else as the data allow."""
    if config.augment.flip is not None:
        return config.augment.flip
    if config.augment.kind == "none":
        return False
    return looks_the_same(data.examples, class_of(config, data)) if before is None else before


@torch.no_grad()
def looks_the_same(examples: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]) -> bool:
    """Whether images [N, H, W, C] of each of these classes [N] (-1 without one) look like mirror images of such.

    False where a class has too few of them, and where there are too many classes to ask.
    """
    names = np.unique(classes[classes >= 0])
    if not 0 < len(names) * LEAST <= 2 * MOST:
        return False
    drawn, each = permutation(SEED, 0, len(examples)), max(LEAST, MOST // len(names))
    kinds = [drawn[classes[drawn] == name][:each] for name in names]
    return min(map(len, kinds)) >= LEAST and not any(_is_told(examples, rows) for rows in kinds)


def _is_told(examples: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> bool:
    """Each half by what was fitted to the other."""
    differences = _differences(examples, rows)
    halves = differences[::2], differences[1::2]
    told = sum(_told(*pair) for pair in (halves, halves[::-1])) / len(rows)
    return told > max(TOLD, 0.5 + DEVIATIONS * 0.5 / math.sqrt(len(rows)))


def _differences(examples: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> Tensor:
    """float64 [n, d]: of the features of images and of their mirror images, each as large as all others."""
    embed = random_features(torch.device("cpu")).embed
    parts = [examples[rows[first : first + BATCH]] for first in range(0, len(rows), BATCH)]
    differences = torch.cat([embed(part) - embed(part[:, :, ::-1]) for part in parts]).double()
    return differences / differences.square().mean(dim=0).sqrt().clamp(min=1e-12)


def _told(fitted: Tensor, tried: Tensor) -> float:
    """How many of `tried` lie on the side of `fitted`, by ridge regression; those that equal their mirror image count half."""
    weight = fitted.T @ fitted / len(fitted) + RIDGE * torch.eye(fitted.shape[1], dtype=fitted.dtype)
    side = (tried @ torch.linalg.solve(weight, fitted.mean(dim=0))).sign()
    return float((0.5 + 0.5 * side).sum())
