"""The original minimax game: G minimises log(1 - D(G(z))), which saturates while D is ahead.

Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1, with D(x) = sigmoid(logit).
"""

from torch import Tensor
from torch.nn.functional import softplus

PAIRED = False
LEVEL = 0.0


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))) of logits [n]; -log sigmoid(t) = softplus(-t)."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all
    """E log(1 - D(G(z))) of logits [n]."""
    return -softplus(fake_logits).mean()
