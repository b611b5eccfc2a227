"""The relativistic pairing game: each generated image is judged beside a real one, which leaves no mode out of sight.

RpGAN, Jolicoeur-Martineau 2018 (arXiv:1807.00734), section 3.4, with f(t) = -log(1 + exp(-t)), as R3GAN uses it with R1 and R2: Huang
et al. 2025 (arXiv:2501.05441), eq. 2. Only differences of logits count, so that the level of D is free.
"""

from torch import Tensor
from torch.nn.functional import softplus

PAIRED = True
LEVEL = None


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(x) - D(G(z)))) over the pairs of logits [n] and [n]."""
    return softplus(fake_logits - real_logits).mean()


def generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E softplus(-(D(G(z)) - D(x))) over the pairs of logits [n] and [n]."""
    return softplus(real_logits - fake_logits).mean()
