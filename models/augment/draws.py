"""From uniform numbers to what each transform needs."""

import torch
from torch import Tensor

_LEAST = 2.0**-24  # as far from 0 as float32 can be from 1: normals stay finite, and 1 itself is never drawn


class Draws:
    """Hands out the columns of uniform numbers [n, K] one after the other; every result is [n], a number for each image.

    All raise StopIteration when no column is left.
    """

    def __init__(self, numbers: Tensor, probability: Tensor) -> None:
        self.probability = probability
        self._columns = iter(numbers.clamp(_LEAST, 1 - _LEAST).unbind(1))

    def uniform(self, low: float, high: float) -> Tensor:
        """Uniform in (low, high)."""
        return low + (high - low) * next(self._columns)

    def integer(self, low: int, high: int) -> Tensor:
        """Whole numbers low .. high, both included, as floats."""
        return low + ((high - low + 1) * next(self._columns)).floor()

    def normal(self, std: float) -> Tensor:
        """Normal around 0, from the inverse of its distribution function."""
        normal: Tensor = torch.special.ndtri(next(self._columns))
        return std * normal

    def gate(self, probability: Tensor | None = None) -> Tensor:
        """Whether to apply a transform, which is so with the given probability, or else that of all."""
        return next(self._columns) < (self.probability if probability is None else probability)

    def sometimes(self, value: Tensor, neutral: float, probability: Tensor | None = None) -> Tensor:
        """`value` where a gate is open, and elsewhere the one that changes nothing."""
        return torch.where(self.gate(probability), value, neutral)
