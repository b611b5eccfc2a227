"""The components of the data: spectral clusters of the principal components of the pixels, within each class.

Coarse as these features are, an image and its nearest ones mostly show the same thing, and from neighbour to neighbour a cluster
follows it through all the shapes that it takes. The same data are divided alike by every run on one machine, whatever its seed.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.components import Division
from models.config import TrainingConfig
from worker.data.prepared import Data
from worker.trainer.clustering import MOST_FITTED, drawn, k_means, spectral_clusters

MOST_VALUES = 1_024  # of an image, which is averaged down to no more
DIMENSIONS = 48
MOST_LOOKED_AT = 10_000  # images that principal components are taken from
AT_A_TIME = 4_096
MOST_SPECTRAL = 500  # components in all; for more, eigenvectors take too long

Numbers = npt.NDArray[np.int16]


def divide(config: TrainingConfig, data: Data, components: Numbers | None = None) -> Division | None:
    """The division that a config asks for, or the one that gave every example this component; None where all are one."""
    per_class = config.network.components
    if per_class == 1:
        return None
    labels = class_of(config, data)
    if components is None:
        components = find_components(data, labels, per_class)
    classes = len(data.spec.classes) if config.network.conditional else 1
    counts = np.zeros((classes, per_class))
    np.add.at(counts, (labels[labels >= 0], components[labels >= 0]), 1)
    counts[counts.sum(axis=1) == 0] = 1  # a class of which there is no example
    shares = counts / counts.sum(axis=1, keepdims=True)
    turns = np.concatenate([np.zeros((classes, 1)), np.cumsum(shares, axis=1)], axis=1)
    turns[:, -1] = 1.0
    return Division(components, turns)


def class_of(config: TrainingConfig, data: Data) -> npt.NDArray[np.int64]:
    """int64 [N]: the labels, -1 where there is none; zeros where classes do not count."""
    return data.labels if config.network.conditional else np.zeros_like(data.labels)


@torch.no_grad()
def find_components(data: Data, labels: npt.NDArray[np.int64], per_class: int) -> Numbers:
    """int16 [N], from 0 to per_class - 1; 0 for examples without a label."""
    features = principal_components(data)
    found = np.zeros(len(labels), np.int16)
    names = np.unique(labels[labels >= 0])
    many = len(names) * per_class > MOST_SPECTRAL
    cluster = k_means if many else partial(spectral_clusters, most_fitted=MOST_FITTED // max(1, len(names)))
    for name in names:
        rows = np.flatnonzero(labels == name)
        found[rows] = cluster(features[torch.from_numpy(rows)], per_class).numpy()
    return found


def principal_components(data: Data) -> Tensor:
    """float32 [N, at most DIMENSIONS] of all the images, along the axes in which some of them differ most."""
    starts = range(0, len(data.examples), AT_A_TIME)
    some = drawn(len(data.examples), MOST_LOOKED_AT)
    fitted = torch.cat(
        [_values(data.examples[some[start : start + AT_A_TIME]]) for start in range(0, len(some), AT_A_TIME)]
    )
    mean = fitted.mean(dim=0)
    fitted -= mean
    axes = torch.linalg.eigh(fitted.T @ fitted).eigenvectors[:, -DIMENSIONS:]
    return torch.cat([(_values(data.examples[start : start + AT_A_TIME]) - mean) @ axes for start in starts])


def _values(examples: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [n, H, W, C] to float32 [n, at most MOST_VALUES], by averaging squares of pixels; those left over at the edges are cut."""
    images = torch.from_numpy(np.array(examples)).float() / 255
    n, height, width, channels = images.shape
    side = 1
    while height * width * channels > MOST_VALUES * side * side and 2 * side <= min(height, width):
        side *= 2
    squares = images[:, : height // side * side, : width // side * side]
    return squares.reshape(n, height // side, side, width // side, side, channels).mean(dim=(2, 4)).flatten(1)
