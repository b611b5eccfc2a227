"""The Wasserstein game: D measures how far apart the two sets lie; it needs the gradient penalty, `gp_weight`.

Arjovsky et al. 2017 (arXiv:1701.07875), eq. 2 and 3, which hold for a D that changes by no more than the images do. The gradient
penalty of arXiv:1704.00028 keeps it near that; without one the loss has no lower bound.
"""

from torch import Tensor

PAIRED = False
LEVEL = None


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) of logits [n]: minus the estimate of the distance."""
    return fake_logits.mean() - real_logits.mean()


def generator_loss(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all
    """-E D(G(z)) of logits [n]."""
    return -fake_logits.mean()
