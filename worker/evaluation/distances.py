"""Euclidean distances between feature vectors: near zero they decide what counts as a copy, so they are exact there.

They stay squared where only their order matters.
"""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

Array = Tensor | npt.NDArray[Any]

SAME = (
    1e-5  # relative to the vectors' length: two float32 features of one image differ by less, of unlike images by more
)
_ROWS = 256  # of a matrix too large to hold


def squared_distances(x: Array, y: Array) -> Tensor:
    """float64 [n, m]: squared, of each row of x [n, d] to each of y [m, d]; exactly 0 where rows are the same to float32."""
    x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = torch.addmm(lengths, x, y.T, alpha=-2)
    return squares.masked_fill_(squares <= lengths * SAME**2, 0)


def nearest(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    """The distance float64 [n] of each row of x [n, d] to the nearest row of y [m, d], and int64 [n], which one that is.

    The search is made in the features' own precision, which may miss the nearer of two that are all but equally near.
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    lengths = y.square().sum(1)
    chunks = (x[first : first + _ROWS] for first in range(0, len(x), _ROWS))
    which = torch.cat([torch.addmm(lengths, rows, y.T, alpha=-2).argmin(1) for rows in chunks])
    x, found = x.double(), y[which].double()
    squares = (x - found).square().sum(1)
    return squares.masked_fill_(squares <= (x.square() + found.square()).sum(1) * SAME**2, 0).sqrt_(), which


def nearest_other(y: Array, n: int, mirrored: Array | None = None) -> Tensor:
    """float64 [at most n]: how far each of the first n rows of y [m, d] is from the nearest row that differs from it.

    A row that repeats one before it is left out. Empty when all rows are the same. The rows of `mirrored` [m, d] count as well, but
    for the one that stands in the row's own place.
    """
    y = torch.as_tensor(y)
    found = []
    for first in range(0, min(n, len(y)), _ROWS):
        matrix = squared_distances(y[first : min(first + _ROWS, n)], y)
        repeats = (matrix == 0).tril(first - 1).any(1)
        if mirrored is not None:
            images = squared_distances(y[first : min(first + _ROWS, n)], mirrored)
            images.diagonal(first).fill_(torch.inf)
            matrix = torch.cat([matrix, images], dim=1)
        found.append(matrix.masked_fill_(matrix == 0, torch.inf).amin(1)[~repeats])
    others = torch.cat(found)
    return others[others.isfinite()].sqrt_()


def neighbour(matrix: Tensor, k: int) -> Tensor:
    """[n]: of distances [n, n] within a set, that of each to its k-th nearest other, k < n."""
    others = matrix.clone().fill_diagonal_(torch.inf)
    return others.topk(k, dim=1, largest=False).values[:, -1]
