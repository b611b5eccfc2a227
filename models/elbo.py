"""The evidence lower bound of a variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114, eq. 3), as a loss."""

import math
from typing import NamedTuple

from torch import Tensor

SIGMA = 1.0  # of a pixel about the decoder's image, which goes from -1 to 1; docs/adr/0015 says why so much


class NegativeElbo(NamedTuple):
    """Float32 scalars, in nats an image, means over the batch: `loss` is `reconstruction` plus beta times `kl`."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor


def negative_elbo(
    images: Tensor, reconstructions: Tensor, mean: Tensor, log_variance: Tensor, beta: float
) -> NegativeElbo:
    """The bound for images [n, C, H, W] in [-1, 1], seen through the decoder's images of the same shape and range.

    The latent z [n, z_dim] was drawn from q(z | x) = N(mean, exp(log_variance)), the encoder's moments [n, z_dim] each. The
    likelihood p(x | z) is Gaussian, independent in every pixel, about the decoder's image, with the fixed standard deviation SIGMA:

        reconstruction = sum over pixels of (x - G(z))^2 / (2 SIGMA^2) + log(SIGMA sqrt(2 pi))
        kl             = sum over z of (mean^2 + exp(log_variance) - 1 - log_variance) / 2       (appendix B)

    The first is minus the logarithm of a density, not of a probability, so it may be below zero. `beta` other than 1 is the
    beta-VAE (Higgins et al. 2017); since SIGMA is fixed, beta b has the same minima as beta 1 with a SIGMA of sqrt(b) times as much.
    Each image counts for itself, so that the gradients of parts of a batch add up to those of the whole.
    """
    pixels = images[0].numel()
    errors = (images.float() - reconstructions.float()).square().flatten(1).sum(dim=1)
    reconstruction = errors.mean() / (2 * SIGMA**2) + pixels * math.log(SIGMA * math.sqrt(2 * math.pi))
    mean, log_variance = mean.float(), log_variance.float()
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
    return NegativeElbo(reconstruction + beta * kl, reconstruction, kl)
