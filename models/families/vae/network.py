"""The two networks of `vae`: convolutional ones in the auto-encoding variational Bayes of arXiv:1312.6114.

Labels join as in the conditional VAE (Sohn, Lee, Yan 2015, "Learning structured output representation using deep conditional
generative models"): an embedding beside z in the decoder, and beside the image's features in the encoder, so that z is left with
what the class does not tell. Nothing in either network looks at another image of the batch.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from models.config import DataSpec
from models.families.layouts import layout_of, stage_widths
from models.families.vae.spec import VaeOptions
from models.layers import Network, look_up

CLASS_DIM = 16
GROUPS = 8
HIDDEN = 256  # between the encoder's features and the two heads
MAX_LOG_VARIANCE = 10.0  # either way: standard deviations from 0.007 to 150


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (arXiv:1803.08494), within each image."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


class Vae(Network):
    """He's first weights; embeddings as large as z."""

    def initial_std(self, name: str, weight: Tensor) -> float:
        return 1.0 if name.startswith("embedding.") else super().initial_std(name, weight)


class Generator(Vae):
    """The decoder: z [n, z_dim] and labels int64 [n] or mixtures float32 [n, classes] (None when unconditional) to images [n, C, H, W] in [-1, 1].

    An image is the mean of p(x | z), which is what a sample shows.
    """

    def __init__(self, options: VaeOptions, data: DataSpec) -> None:
        super().__init__()
        plan = layout_of(data)
        widths = stage_widths(plan, options.width, options.max_width)
        widths = widths[::-1][: plan.doublings]  # mirrors the encoder, from the base outwards
        classes = options.class_rows(data)
        self.embedding = nn.Embedding(classes, CLASS_DIM) if classes else None
        self.base_shape = (plan.base_height, plan.base_width, widths[0])
        self.base = nn.Linear(
            options.z_dim + (CLASS_DIM if classes else 0), widths[0] * plan.base_height * plan.base_width
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths)
        self.stages = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise([*widths, data.channels])
        )

    def initial_std(self, name: str, weight: Tensor) -> float:
        if name.startswith(
            "stages."
        ):  # [in, out, 4, 4], of which each pixel of the result sees every other row and column
            std = math.sqrt(2 / (4 * weight.shape[0]))
            return 0.1 * std if weight is self.stages[-1].weight else std  # starts close to gray, where tanh is steep
        return super().initial_std(name, weight)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z.to(self.base.weight.dtype)
        if self.embedding is not None:
            assert labels is not None, "a conditional generator needs labels"
            z = torch.cat([z, look_up(self.embedding, labels)], dim=1)
        x = self.base(z).view(-1, *self.base_shape).permute(0, 3, 1, 2)  # channels last in memory, at no cost
        for norm, stage in zip(self.norms, self.stages, strict=True):
            x = stage(silu(norm(x)))
        return torch.tanh(x)


class Encoder(Vae):
    """Images [n, C, H, W] in [-1, 1] and labels int64 [n] (None when unconditional) to the moments of q(z | x).

    Returns (mean, log_variance), both [n, z_dim]; log-variances lie within plus and minus MAX_LOG_VARIANCE.
    """

    def __init__(self, options: VaeOptions, data: DataSpec) -> None:
        super().__init__()
        plan = layout_of(data)
        widths = stage_widths(plan, options.width, options.max_width)
        classes = options.class_rows(data)
        self.embedding = nn.Embedding(classes, CLASS_DIM) if classes else None
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise([data.channels, *widths])
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths)
        features = widths[-1] * (data.height >> plan.halvings) * (data.width >> plan.halvings)
        self.hidden = nn.Linear(features + (CLASS_DIM if classes else 0), HIDDEN)
        self.moments = nn.Linear(HIDDEN, 2 * options.z_dim)

    def initial_std(self, name: str, weight: Tensor) -> float:
        std = super().initial_std(name, weight)
        return 0.1 * std if name.startswith("moments.") else std  # starts close to the prior

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = images
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = silu(norm(stage(x)))
        x = x.permute(0, 2, 3, 1).flatten(1)  # without a copy where channels are last in memory
        if self.embedding is not None:
            x = torch.cat([x, self.embedding(labels).to(x.dtype)], dim=1)
        mean, log_variance = self.moments(silu(self.hidden(x))).chunk(2, dim=1)
        # Not a clamp: beyond its ends nothing would be learned any more.
        return mean, MAX_LOG_VARIANCE * torch.tanh(log_variance / MAX_LOG_VARIANCE)
