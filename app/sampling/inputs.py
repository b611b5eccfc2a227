"""What the rows of a request are made from: seeds, as nearly always, or latent vectors that the caller gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Seeds:
    """One row a seed. `labels` int64 [n] are class indices; without them a conditional model takes each seed's own."""

    seeds: Sequence[int]
    labels: NDArray[np.int64] | None = None
    truncation: float = 1.0

    @classmethod
    def of(cls, seeds: Sequence[int], labels: Sequence[int] | None = None, truncation: float = 1.0) -> Self:
        """With the labels as they come from requests."""
        return cls(seeds, None if labels is None else np.asarray(labels, np.int64), truncation)

    def __len__(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True, eq=False)
class Latents:
    """Rows float32 [n, z_dim] as they are, with the labels that a conditional model needs: int64 [n] class indices or float32
    [n, n_classes] mixtures of classes.
    """

    z: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.z)


Inputs = Seeds | Latents
