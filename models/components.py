"""Components: how a generator knows of the kinds of images that are found within each class, or in data without classes.

Conditioning on such parts makes modes that lie apart as easy to learn as labels do (arXiv:2006.10728), and asks nothing of who
samples: which component an image belongs to is told by the direction of the first two values of z. Each has a sector as large as its
share of the class, so z stays standard normal; and as a direction has no length, truncation changes no component.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from models.config import DataSpec, NetworkOptions

PLANE = 2  # values of z


class Components(nn.Module):
    """From a latent vector and a label to the row that a table of components has for them."""

    edges: Tensor

    def __init__(self, options: NetworkOptions, data: DataSpec) -> None:
        super().__init__()
        self.per_class = options.components
        if self.per_class > 1:  # of equal shares, until it is told better
            classes = len(data.classes) if options.conditional else 1
            shares = np.full((classes, self.per_class), 1 / self.per_class)
            self.register_buffer("edges", torch.empty(classes, self.per_class - 1))
            self.divide(shares)

    @torch.no_grad()
    def divide(self, shares: npt.NDArray[np.float64]) -> None:
        """Give each component its share [classes, per_class] of its class; those of a class sum to 1."""
        turns = np.cumsum(shares, axis=1)[:, :-1]
        self.edges.copy_(torch.from_numpy(_around(*_direction(turns))))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor | None:
        """From z [n, z_dim] and int64 [n] (None without classes) to int64 [n]; a hidden class has one row, after all others.

        Mixtures float32 [n, classes] give mixtures float32 [n, classes * per_class]: of each class the component that z tells.
        """
        if self.per_class == 1:
            return labels
        x, y = z[:, 0].float(), z[:, 1].float()
        place = 1 - x / (
            x.abs() + y.abs()
        )  # grows with the angle, from additions and a division that round alike everywhere
        place = torch.where(y < 0, -place, place)[:, None]
        if labels is None:
            return (place >= self.edges[0]).sum(dim=1)
        if labels.ndim > 1:
            told = (place[:, :, None] >= self.edges).sum(dim=2)
            return (one_hot(told, self.per_class) * labels[:, :, None]).flatten(1)
        known = labels.clamp(max=len(self.edges) - 1)
        component = (place >= self.edges[known]).sum(dim=1)
        return labels * self.per_class + torch.where(labels < len(self.edges), component, 0)


def _direction(turns: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The unit vector after so many turns, 0 to 1, counterclockwise from (-1, 0)."""
    angle = 2 * np.pi * (turns - 0.5)
    return np.cos(angle), np.sin(angle)


def _around(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """As far around as (x, y) lies, -2 to 2: what `Components` compares by."""
    place = 1 - x / (np.abs(x) + np.abs(y))
    around: npt.NDArray[np.float64] = np.where(y < 0, -place, place)
    return around


def steer(
    z: npt.NDArray[np.float32], begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Latents [n, z_dim] turned into the sector from `begin` to `end` [n], in turns: standard normal, given that it lies there."""
    x, y = z[:, 0].astype(np.float64), z[:, 1].astype(np.float64)
    turn = np.arctan2(y, x) / (2 * np.pi) + 0.5
    steered = z.copy()
    steered[:, :PLANE] = np.stack(_direction(begin + turn * (end - begin)), axis=1) * np.hypot(x, y)[:, None]
    return steered


@dataclass(frozen=True)
class Division:
    """Which component of its class each example belongs to, int16 [N]; `turns` float64 [classes, per_class + 1] add up their shares."""

    components: npt.NDArray[np.int16]
    turns: npt.NDArray[np.float64]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        return np.diff(self.turns)

    def rows(self, numbers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What the tables of the networks have for these examples of the data and their labels; a hidden class has the last row."""
        hidden = labels >= len(self.turns)
        rows: npt.NDArray[np.int64] = labels * self.shares.shape[1] + np.where(hidden, 0, self.components[numbers])
        return rows

    def latents(
        self, z: npt.NDArray[np.float32], numbers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Latents [n, z_dim], given that each sample is of the same component as its example; where the class is hidden, of any."""
        hidden = labels >= len(self.turns)
        component, known = self.components[numbers], np.where(hidden, 0, labels)
        begin = np.where(hidden, 0.0, self.turns[known, component])
        end = np.where(hidden, 1.0, self.turns[known, component + 1])
        return steer(z, begin, end)
