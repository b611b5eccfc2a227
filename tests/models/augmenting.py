"""Plain references for the tests of augmentation, one pixel and one image at a time."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Image = npt.NDArray[np.float64]
CLOSED = 0.999  # a number at which no gate is open, for probabilities up to it
HALF = torch.tensor(0.5)


def pictures(n: int, channels: int, height: int, width: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of uniform noise in [-1, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.rand(n, channels, height, width, dtype=torch.float64, generator=generator) - 1).to(dtype)


def uniform(n: int, numbers: int, *, seed: int = 0) -> Tensor:
    """float32 [n, numbers] in (0, 1)."""
    return torch.rand(n, numbers, generator=torch.Generator().manual_seed(seed)).clamp(min=1e-6)


def closed_but(numbers: int, opened: dict[int, float]) -> Tensor:
    """float32 [1, numbers]: all gates closed, but for the given columns."""
    row = torch.full((1, numbers), CLOSED)
    for column, number in opened.items():
        row[0, column] = number
    return row


def mirrored(place: int, size: int) -> int:
    """Where a place beyond the edges lies in the mirrored image."""
    while not 0 <= place < size:
        place = -1 - place if place < 0 else 2 * size - 1 - place
    return place


def sampled(image: Image, source: Callable[[float, float], tuple[float, float]]) -> Image:
    """An image [C, H, W] whose pixel at (x, y) is the one around source(x, y), bilinearly."""
    _, H, W = image.shape
    result = np.zeros_like(image)
    for row in range(H):
        for column in range(W):
            x, y = source(column, row)
            left, top = math.floor(x), math.floor(y)
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (y - top if i else 1 - y + top) * (x - left if j else 1 - x + left)
                result[:, row, column] += weight * image[:, mirrored(top + i, H), mirrored(left + j, W)]
    return result


def with_hole(image: Image, y: float, x: float) -> Image:
    """An image without the pixels whose middles lie within a quarter of its size of (y, x), in parts of its size."""
    _, H, W = image.shape
    result = image.copy()
    for row in range(H):
        for column in range(W):
            if abs((row + 0.5) / H - y) < 0.25 and abs((column + 0.5) / W - x) < 0.25:
                result[:, row, column] = 0
    return result
