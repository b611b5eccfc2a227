"""DiffAugment: Zhao et al. 2020 (arXiv:2006.10738), section 3.2 and appendix A."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.augment.draws import Draws
from models.augment.pixels import colours, cutout, shift

MOST_SHIFT = 1 / 8  # of the height and width
NUMBERS = {"color": 6, "translation": 3, "cutout": 3}  # uniform numbers that each part takes


def transform(images: Tensor, draws: Draws, policy: Sequence[str]) -> Tensor:
    """Images [n, C, H, W] after the parts of the policy, in its order."""
    for part in policy:
        images = _PARTS[part](images, draws)
    return images


def _color(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, saturation and contrast, of an image's colours and not of its alpha."""
    brightness = draws.sometimes(draws.uniform(-0.5, 0.5), 0)[:, None, None, None]
    saturation = draws.sometimes(draws.uniform(0, 2), 1)[:, None, None, None]
    contrast = draws.sometimes(draws.uniform(0.5, 1.5), 1)[:, None, None, None]
    k = colours(images)
    x = images[:, :k] + brightness
    # Written so that a factor of 1 leaves every bit.
    x = x + (saturation - 1) * (x - x.mean(dim=1, keepdim=True))
    x = x + (contrast - 1) * (x - x.mean(dim=(1, 2, 3), keepdim=True))
    return torch.cat([x, images[:, k:]], dim=1) if k < images.shape[1] else x


def _translation(images: Tensor, draws: Draws) -> Tensor:
    """By whole pixels, up to an eighth of the image in each direction."""
    down, right = (int(size * MOST_SHIFT + 0.5) for size in images.shape[2:])
    y, x, applied = draws.integer(-down, down), draws.integer(-right, right), draws.gate()
    return shift(images, torch.where(applied, y, 0), torch.where(applied, x, 0))


def _cutout(images: Tensor, draws: Draws) -> Tensor:
    """A hole of half the height and width, around a place anywhere in the image."""
    return cutout(images, y=draws.uniform(0, 1), x=draws.uniform(0, 1), applied=draws.gate())


_PARTS: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
