"""The two networks of `mlp`: the founding article's, layer for layer.

Generator: 128-256-512-1024-1024-512-256-128-64-32 and an image whose values a sigmoid keeps in (0, 1), rescaled to the (-1, 1)
that every family shares. Discriminator: 1024-512-256-128-64-32 and one logit, whose sigmoid lies in the loss. Leaky ReLU between.

Labels join as in Mirza and Osindero 2014 (arXiv:1411.1784, fig. 1): one-hot, beside z and beside the image's values.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from models.components import Components
from models.config import DataSpec
from models.families.mlp.spec import MlpOptions
from models.layers import Network

LEAK = 0.2
GENERATOR_WIDTHS = (128, 256, 512, 1024, 1024, 512, 256, 128, 64, 32)
DISCRIMINATOR_WIDTHS = (1024, 512, 256, 128, 64, 32)


def _layers(inputs: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    hidden = [(nn.Linear(a, b), nn.LeakyReLU(LEAK)) for a, b in pairwise((inputs, *widths))]
    return nn.Sequential(*(layer for pair in hidden for layer in pair), nn.Linear(widths[-1], outputs))


def _beside(x: Tensor, rows: Tensor | None, classes: int) -> Tensor:
    if rows is None or not classes:
        return x
    told = one_hot(rows, classes) if rows.ndim == 1 else pad(rows, (0, classes - rows.shape[1]))
    return torch.cat([x, told.to(x.dtype)], dim=1)


class Generator(Network):
    """z [n, z_dim] and labels int64 [n] or mixtures float32 [n, classes] (None when unconditional) to images [n, C, H, W] in [-1, 1]."""

    def __init__(self, options: MlpOptions, data: DataSpec) -> None:
        super().__init__()
        self.shape = (data.channels, data.height, data.width)
        self.components = Components(options, data)
        self.classes = options.class_rows(data)
        values = data.channels * data.height * data.width
        self.layers = _layers(options.z_dim + self.classes, GENERATOR_WIDTHS, values)

    def activated(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        layers = list(self.layers)
        return zip(layers[0::2], layers[1::2], strict=False)  # all but the last

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        rows = self.components(z, labels)
        values = torch.sigmoid(self.layers(_beside(z.to(next(self.layers.parameters()).dtype), rows, self.classes)))
        return values.view(-1, *self.shape) * 2 - 1


class Discriminator(Network):
    """Images [n, C, H, W] in [-1, 1] and rows int64 [n] of its table of classes (None without one) to logits [n]."""

    def __init__(self, options: MlpOptions, data: DataSpec) -> None:
        super().__init__()
        self.classes = options.class_rows(data)
        values = data.channels * data.height * data.width
        self.layers = _layers(values + self.classes, DISCRIMINATOR_WIDTHS, 1)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        logits: Tensor = self.layers(_beside(x.flatten(1), rows, self.classes))
        return logits.squeeze(1)
