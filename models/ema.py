"""The exponential moving average of the generator, which is what a snapshot holds."""

import torch
from torch import nn

from models.config import Ema


def decay(ema: Ema, batch_size: int, examples_seen: int) -> float:
    """The weight that the old average keeps in this step: 0.5 ** (batch_size / half-life).

    The half-life is min(half_life, ramp * examples_seen), so that the first, random weights are forgotten at once.
    """
    half_life = min(ema.half_life, ema.ramp * examples_seen)
    return 0.5 ** (batch_size / half_life) if half_life else 0.0


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Set the average to keep * average + (1 - keep) * network, in place.

    The running statistics of batch normalisation are averaged like the weights: an average of weights is used with the average
    of the statistics that they had. Counters are copied.
    """
    ours = [*average.parameters(), *average.buffers()]
    theirs = [*network.parameters(), *network.buffers()]
    floating = [(mine, its) for mine, its in zip(ours, theirs, strict=True) if mine.is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in floating], [its for _, its in floating], 1 - keep)
    for mine, its in zip(ours, theirs, strict=True):
        if not mine.is_floating_point():
            mine.copy_(its)
