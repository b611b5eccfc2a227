"""The two networks of `dcgan`, after Radford, Metz, Chintala 2015 (arXiv:1511.06434), section 3.

Labels join in three places: an embedding beside z, class-dependent gains and biases in the generator's batch normalisation
(arXiv:1707.00683), and a projection in the discriminator (arXiv:1802.05637, eq. 3).
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from models.components import Components
from models.config import DataSpec
from models.families.dcgan.spec import DcganOptions
from models.families.layouts import layout_of, stage_widths
from models.layers import BatchNorm, ConditionalBatchNorm, Network, look_up

INITIAL_STD = 0.02  # section 4 of the paper
LEAK = 0.2
CLASS_DIM = 16


class Dcgan(Network):
    def initial_std(self, name: str, weight: Tensor) -> float:  # noqa: ARG002 - all are alike
        return INITIAL_STD


class Generator(Dcgan):
    """z [n, z_dim] and labels int64 [n] or mixtures float32 [n, classes] (None when unconditional) to images [n, C, H, W] in [-1, 1]."""

    def __init__(self, options: DcganOptions, data: DataSpec) -> None:
        super().__init__()
        plan = layout_of(data)
        widths = stage_widths(plan, options.width, options.max_width)
        widths = widths[::-1][: plan.doublings]  # mirrors the discriminator, from the base outwards
        classes = options.class_rows(data)
        self.components = Components(options, data)
        self.embedding = nn.Embedding(classes, CLASS_DIM) if classes else None
        self.base_shape = (plan.base_height, plan.base_width, widths[0])
        self.base = nn.Linear(
            options.z_dim + (CLASS_DIM if classes else 0), widths[0] * plan.base_height * plan.base_width, bias=False
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, classes) if classes else BatchNorm(w) for w in widths)
        # Only the last has a bias: before a normalisation it would cancel.
        hidden = [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)]
        last = nn.ConvTranspose2d(widths[-1], data.channels, 4, stride=2, padding=1)
        self.stages = nn.ModuleList([*hidden, last])
        self.activations = nn.ModuleList(nn.ReLU() for _ in widths)
        self.squash = nn.Tanh()

    def normalised(self) -> Iterable[tuple[nn.Linear | nn.ConvTranspose2d, nn.Module]]:
        """All but the last."""
        return zip([self.base, *self.stages], self.norms, strict=False)

    def activated(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        if self.embedding is None:  # else what a class gives comes in between
            yield from zip([self.base, *self.stages], self.activations, strict=False)
        yield self.stages[-1], self.squash

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        rows = self.components(z, labels)
        z = z.to(self.base.weight.dtype)
        if self.embedding is not None:
            z = torch.cat([z, look_up(self.embedding, rows)], dim=1)
        x = self.base(z).view(-1, *self.base_shape).permute(0, 3, 1, 2)  # channels last in memory, at no cost
        for norm, activation, stage in zip(self.norms, self.activations, self.stages, strict=True):
            x = stage(activation(norm(x, rows)))
        images: Tensor = self.squash(x)
        return images


class Discriminator(Dcgan):
    """Images [n, C, H, W] in [-1, 1] and rows int64 [n] of its table of classes (None without one) to logits [n].

    It is only ever used in training, so its batch normalisation keeps no running statistics.
    """

    def __init__(self, options: DcganOptions, data: DataSpec) -> None:
        super().__init__()
        plan = layout_of(data)
        widths = stage_widths(plan, options.width, options.max_width)
        classes = options.class_rows(data)
        first = nn.Conv2d(data.channels, widths[0], 4, stride=2, padding=1)
        hidden = [nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)]
        self.stages = nn.ModuleList([first, *hidden])
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, track_running_stats=False) for width in widths[1:])
        features = widths[-1] * (data.height >> plan.halvings) * (data.width >> plan.halvings)
        self.head = nn.Linear(features, 1)
        self.projection = nn.Embedding(classes, features) if classes else None

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        x = leaky_relu(self.stages[0](x), LEAK)
        for stage, norm in zip(self.stages[1:], self.norms, strict=True):
            x = leaky_relu(norm(stage(x)), LEAK)
        x = x.permute(0, 2, 3, 1).flatten(1)  # without a copy where channels are last in memory
        logits: Tensor = self.head(x).squeeze(1)
        if self.projection is not None:
            logits = logits + (self.projection(rows) * x).sum(dim=1)
        return logits
