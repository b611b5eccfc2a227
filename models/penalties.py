"""Gradient penalties on the discriminator."""

from collections.abc import Callable

import torch
from torch import Tensor


def r1(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """E |grad_x D(x)|^2 over real images [n, C, H, W], summed over an image's values; a scalar that can be differentiated.

    Mescheder et al. 2018 (arXiv:1801.04406), eq. 9, without its factor gamma / 2. That equation is about a discriminator that judges
    each image by itself. One with batch normalisation does not: the gradient then also holds an image's part in the others' logits.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
