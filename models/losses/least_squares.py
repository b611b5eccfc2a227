"""The least-squares game: D regresses 1 on real and 0 on generated images, and G draws its own towards 1.

Mao et al. 2016 (arXiv:1611.04076), eq. 9: the targets 0 and 1, with half of each square.
"""

from torch import Tensor

PAIRED = False
LEVEL = 0.5


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E (D(x) - 1)^2 / 2 + E D(G(z))^2 / 2 of logits [n]."""
    return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2


def generator_loss(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all
    """E (D(G(z)) - 1)^2 / 2 of logits [n]."""
    return (fake_logits - 1).square().mean() / 2
