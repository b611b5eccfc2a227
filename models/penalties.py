"""Gradient penalties on the discriminator, each without its weight.

D is a function from images [n, C, H, W] to logits [n], and is meant to judge each image by itself. One with batch normalisation
does not: the gradient at an image then also holds its part in the others' logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def gradient_norm2(D: Critic, images: Tensor) -> Tensor:
    """E |grad_x D(x)|^2 over images [n, C, H, W], summed over an image's values; a scalar that can be differentiated.

    At real images this is R1, at generated ones R2: Mescheder et al. 2018 (arXiv:1801.04406), eq. 9 and 10, without gamma / 2.
    """
    return _gradient(D, images).square().sum(dim=(1, 2, 3)).mean()


def gradient_norm2_estimate(D: Critic, images: Tensor, noise: Tensor, scale: float = 0.01) -> Tensor:
    """E ((D(x) - D(x + scale e)) / scale)^2 for images and standard normal noise e of one shape; a scalar.

    The difference is grad D(x) . e to first order in `scale`, whose square has the mean |grad D(x)|^2 over e. Nothing is
    differentiated twice, at the price of noise: the standard deviation of one image's square is sqrt(2) |grad D(x)|^2.
    Both images pass through D in batches of their own, so that it must be the same function twice.
    """
    return ((D(images) - D(images + scale * noise)) / scale).square().mean()


def gradient_penalty(D: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (|grad D(x)| - 1)^2 at x = mix real + (1 - mix) fake, images [n, C, H, W] and mix [n, 1, 1, 1] in [0, 1]; a scalar.

    Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3, without its lambda.
    """
    norm: Tensor = torch.linalg.vector_norm(_gradient(D, mix * real + (1 - mix) * fake), dim=(1, 2, 3))
    return (norm - 1).square().mean()


def _gradient(D: Critic, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    return gradient
