"""The components of the data: k-means on the principal components of the pixels, within each class.

Coarse as these features are, what they tell apart (strokes that lean, thick ones, the colour of the ground) is what a small generator
tends to leave out. The same data are always divided alike, whatever the seed of the run.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.components import Division
from models.config import TrainingConfig
from models.randomness import Purpose, uniform_bits
from worker.data.prepared import Data

SEED = 0
MOST_VALUES = 1_024  # of an image, which is averaged down to no more
DIMENSIONS = 48
MOST_FITTED = 10_000  # images that means and principal components are taken from
ROUNDS = 20
AT_A_TIME = 4_096

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
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        found[rows] = k_means(features[torch.from_numpy(rows)], per_class).numpy()
    return found


def principal_components(data: Data) -> Tensor:
    """float32 [N, at most DIMENSIONS] of all the images, along the axes in which some of them differ most."""
    starts = range(0, len(data.examples), AT_A_TIME)
    some = _drawn(len(data.examples), MOST_FITTED)
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


def k_means(points: Tensor, k: int) -> Tensor:
    """int16 [n]: the nearest of k means of float32 [n, d], by Lloyd's rounds from k-means++ (Arthur and Vassilvitskii 2007)."""
    some = points[torch.from_numpy(_drawn(len(points), MOST_FITTED))]
    means = _first_means(some, k)
    for _ in range(ROUNDS):
        nearest = _nearest(some, means)
        counts = torch.bincount(nearest, minlength=k)[:, None]
        sums = torch.zeros_like(means).index_add_(0, nearest, some)
        means = torch.where(counts > 0, sums / counts.clamp(min=1), means)
    return _nearest(points, means).to(torch.int16)


def _first_means(points: Tensor, k: int) -> Tensor:
    """Each next one is drawn by its squared distance to the nearest so far."""
    uniform = uniform_bits(SEED, np.arange(k), Purpose.DIVISION, 1)[:, 0] * 2.0**-32
    chosen = [int(uniform[0] * len(points))]
    distance = torch.full((len(points),), torch.inf)
    for share in uniform[1:]:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(dim=1))
        upto = distance.double().cumsum(0)
        chosen.append(min(int(torch.searchsorted(upto, upto[-1] * share, right=True)), len(points) - 1))
    return points[chosen]


def _nearest(points: Tensor, means: Tensor) -> Tensor:
    lengths = means.square().sum(dim=1)
    return torch.cat([(lengths - 2 * part @ means.T).argmin(dim=1) for part in torch.split(points, AT_A_TIME)])


def _drawn(n: int, most: int) -> npt.NDArray[np.int64]:
    """int64 [at most `most`] of 0 .. n - 1, in order."""
    bits = uniform_bits(SEED, 0, Purpose.DIVISION, n)[0]
    return np.sort(np.argsort(bits, kind="stable")[:most])
