"""Layers that families share, and how every network gets its first weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.randomness import Purpose, normals


class Network(nn.Module):
    """What every family's networks are: modules that know the standard deviations of their first weights."""

    def initial_std(self, name: str, weight: Tensor) -> float:  # noqa: ARG002 - families go by the name
        """Of a weight [out, in, ...]: He's sqrt(2 / fan_in) (arXiv:1502.01852, eq. 10), unless the family says otherwise."""
        return math.sqrt(2 / weight[0].numel())

    def normalised(self) -> Iterable[tuple[nn.Linear | nn.ConvTranspose2d, nn.Module]]:
        """Each layer whose result goes through batch normalisation, with that one."""
        return ()

    def activated(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Layers, each with its own activation: that comes next or, where there is batch normalisation without classes, after that."""
        return ()


def look_up(table: nn.Embedding, rows: Tensor) -> Tensor:
    """The rows of a table, [n, dim]: those of int64 [n] or, for mixtures float32 [n, k] of its first k rows, their weighted sums.

    A mixture of one row is that row, to the bit.
    """
    if rows.ndim == 1:
        found: Tensor = table(rows)
        return found
    return (rows @ table.weight[: rows.shape[1]].float()).to(table.weight.dtype)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation (arXiv:1502.03167) in a generator that is given no labels."""

    def forward(self, input: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: A002, ARG002 - as in the base class
        return super().forward(input)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain and bias depend on the class (arXiv:1707.00683, eq. 3)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(classes, channels)  # minus one
        self.bias = nn.Embedding(classes, channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """[n, C, H, W] and int64 [n], or mixtures of classes, to [n, C, H, W]."""
        gain = 1 + look_up(self.gain, labels).to(x.dtype)[:, :, None, None]
        bias = look_up(self.bias, labels).to(x.dtype)[:, :, None, None]
        return torch.addcmul(bias, self.norm(x), gain)


@torch.no_grad()
def initialise(network: Network, seed: int, purpose: Purpose) -> None:
    """Fill every parameter and buffer: weights are normal, gains one, biases zero, running statistics those of N(0, 1).

    A parameter's numbers depend on the seed and on its place in the network alone, and torch's own generator is left untouched.
    """
    for place, (name, parameter) in enumerate(network.named_parameters()):
        if parameter.ndim > 1:
            draw = normals(seed, place, purpose, parameter.numel())[0] * network.initial_std(name, parameter)
            parameter.copy_(torch.from_numpy(draw).view(parameter.shape))
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
