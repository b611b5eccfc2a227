"""The transforms of adaptive discriminator augmentation: Karras et al. 2020 (arXiv:2006.06676), appendix B.

Pixel blitting, geometry, colour and cutout; without the paper's filter and noise, and sampled bilinearly instead of through a
wavelet filter. The mirror is left out unless the config says that the data is mirrored, as else it could show up in the samples.
"""

import math

import torch
from torch import Tensor

from models.augment.draws import Draws
from models.augment.pixels import bilinear, colours, cutout

NUMBERS = 31  # uniform numbers for each image


def transform(images: Tensor, draws: Draws, flip: bool) -> Tensor:
    """Images [n, C, H, W] after geometry, colour and cutout; `flip` allows mirrored ones."""
    images = _move(images, _geometry(draws, *images.shape[2:], flip=flip))
    images = _colour(images, draws)
    return cutout(images, y=draws.uniform(0, 1), x=draws.uniform(0, 1), applied=draws.gate())


def _geometry(draws: Draws, height: int, width: int, *, flip: bool) -> Tensor:
    """[n, 3, 3]: from a place (x, y, 1) in the result, in pixels from the middle, to its place in the image.

    The paper composes the opposite way and inverts. Every step is as likely as its inverse, so that it comes to the same.
    """
    mirror = draws.sometimes(draws.integer(0, 1), 0) * flip
    quarters = (
        draws.sometimes(draws.integer(0, 3), 0) if height == width else 2 * draws.sometimes(draws.integer(0, 1), 0)
    )
    right, down = draws.uniform(-0.125, 0.125) * width, draws.uniform(-0.125, 0.125) * height
    whole = draws.gate()
    matrix = _scaling(1 - 2 * mirror, torch.ones_like(mirror)) @ _rotation(quarters * (math.pi / 2)).round()
    matrix = matrix @ _translation(torch.where(whole, right.round(), 0), torch.where(whole, down.round(), 0))

    # Turned before and after the stretching, and by at least one of both with the probability of all.
    turns = 1 - (1 - draws.probability).sqrt()
    zoom = draws.sometimes(draws.normal(0.2), 0).exp2()
    matrix = matrix @ _scaling(zoom, zoom)
    matrix = matrix @ _rotation(draws.sometimes(draws.uniform(-math.pi, math.pi), 0, turns))
    stretch = draws.sometimes(draws.normal(0.2), 0)
    matrix = matrix @ _scaling(stretch.exp2(), (-stretch).exp2())
    matrix = matrix @ _rotation(draws.sometimes(draws.uniform(-math.pi, math.pi), 0, turns))
    right, down, fraction = draws.normal(0.125) * width, draws.normal(0.125) * height, draws.gate()
    return matrix @ _translation(torch.where(fraction, right, 0), torch.where(fraction, down, 0))


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _matrix(x, zero, zero, zero, y, zero)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix(cos, -sin, zero, sin, cos, zero)


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix(one, zero, x, zero, one, y)


def _matrix(*upper: Tensor) -> Tensor:
    """[n, 3, 3] of its six upper entries [n], row by row."""
    zero, one = torch.zeros_like(upper[0]), torch.ones_like(upper[0])
    return torch.stack([*upper, zero, zero, one], dim=1).view(-1, 3, 3)


def _move(images: Tensor, matrix: Tensor) -> Tensor:
    """Sampled once, through all of the geometry; an image that does not move is not sampled, and keeps every bit."""
    H, W = images.shape[2:]
    middle_y, middle_x = (H - 1) / 2, (W - 1) / 2
    y = torch.arange(H, device=images.device)[:, None] - middle_y
    x = torch.arange(W, device=images.device) - middle_x
    (xx, xy, x0), (yx, yy, y0) = ([entry[:, None, None] for entry in row.unbind(1)] for row in matrix[:, :2].unbind(1))
    moved = bilinear(images, y=yx * x + yy * y + y0 + middle_y, x=xx * x + xy * y + x0 + middle_x)
    return torch.where(_differs(matrix)[:, None, None, None], moved, images)


def _colour(images: Tensor, draws: Draws) -> Tensor:
    """One affine map of the colours; of grey, which has neither hue nor saturation, its brightness and contrast alone.

    With P = vv' onto the grey axis v = (1, 1, 1) / sqrt(3), Q = I - P, and K the cross product with v, a turned hue is
    P + cos Q + sin K, a flipped luma Q - P, and a saturation P + s Q. They commute, and their product is the matrix below.
    """
    brightness = draws.sometimes(draws.normal(0.2), 0)
    contrast = draws.sometimes(draws.normal(0.5), 0).exp2()[:, None, None]
    luma = 1 - 2 * draws.sometimes(draws.integer(0, 1), 0)[:, None, None]
    hue = draws.sometimes(draws.uniform(-math.pi, math.pi), 0)[:, None, None]
    saturation = draws.sometimes(draws.normal(1), 0).exp2()[:, None, None]

    k = colours(images)
    identity = torch.eye(k, device=images.device)
    matrix = contrast * identity
    if k == 3:
        P = torch.full_like(identity, 1 / 3)
        K = (identity.roll(1, 0) - identity.roll(-1, 0)) / math.sqrt(3)
        matrix = contrast * (luma * P + saturation * (hue.cos() * (identity - P) + hue.sin() * K))
    x = images[:, :k]
    mixed = torch.einsum("nij,njhw->nihw", matrix.to(x.dtype), x + brightness[:, None, None, None])
    changed = _differs(matrix) | (brightness != 0)
    x = torch.where(changed[:, None, None, None], mixed, x)
    return torch.cat([x, images[:, k:]], dim=1) if k < images.shape[1] else x


def _differs(matrix: Tensor) -> Tensor:
    """Whether each [n] is anything but the identity."""
    return (matrix != torch.eye(matrix.shape[1], device=matrix.device)).flatten(1).any(dim=1)
