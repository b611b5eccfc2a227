"""The hinge game: D stops at a margin of 1 on either side and G raises D(G(z)), whose gradient never fades.

Lim and Ye 2017 (arXiv:1705.02894), eq. 21 to 23; in the form of SAGAN, Zhang et al. 2018 (arXiv:1805.08318), eq. 4.
"""

from torch import Tensor
from torch.nn.functional import relu

PAIRED = False
LEVEL = 0.0


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) of logits [n]."""
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def generator_loss(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all
    """-E D(G(z)) of logits [n]."""
    return -fake_logits.mean()
