"""Features that nobody has to train: two layers of fixed random convolutions over the image at several scales.

Random convolutions with a nonlinearity tell textures and layouts apart well enough to see whether two sets of images are alike
(arXiv:1606.00021 for textures, arXiv:2107.00623 for scores of generators), and need neither labels nor weights. Their distances
follow pixels more than what a person sees: they show that samples are far off, less whether they are good.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, leaky_relu

from models.randomness import Purpose, normals
from worker.evaluation.features import Features, Images

SEED = 0
WIDTH = 16
SCALES = 4  # each half as large as the one before it, and at least one pixel
CELLS = 2  # means are taken over so many parts of each side
LARGEST_SIDE = 64  # pixels; larger images are first averaged down to it
MOST_CHANNELS = 4
DIM = SCALES * WIDTH * CELLS**2
_SLOPE = 0.2


def random_features(device: torch.device) -> Features:
    """Features of images of any size and of 1 to 4 channels, the same on every machine up to rounding."""
    first, second = _filters(0, MOST_CHANNELS).to(device), _filters(1, WIDTH).to(device)

    def embed(images: Images) -> Tensor:
        x = torch.from_numpy(np.array(images, order="C")).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = _reduced(x)
        # The filters of fewer channels are the first ones of four, with as much weight as four have.
        of_channels = first[:, : x.shape[1]] * (MOST_CHANNELS / x.shape[1]) ** 0.5
        scales = []
        for _ in range(SCALES):
            hidden = leaky_relu(conv2d(x, of_channels, padding=1), _SLOPE)
            hidden = leaky_relu(conv2d(hidden, second, padding=1), _SLOPE)
            scales.append(adaptive_avg_pool2d(hidden, CELLS).flatten(1))
            x = avg_pool2d(x, 2, ceil_mode=True) if max(x.shape[2:]) > 1 else x
        return torch.cat(scales, dim=1)

    return Features("random-conv", DIM, embed)


def _filters(place: int, channels: int) -> Tensor:
    """float32 [WIDTH, channels, 3, 3], scaled as by He et al. (arXiv:1502.01852, eq. 10) so that what is computed keeps its size."""
    draw = normals(SEED, place, Purpose.INIT_FEATURES, WIDTH * channels * 9)[0]
    draw *= (2 / (channels * 9)) ** 0.5
    return torch.from_numpy(draw).view(WIDTH, channels, 3, 3)


def _reduced(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    shrink = LARGEST_SIDE / max(height, width)
    if shrink >= 1:
        return x
    return adaptive_avg_pool2d(x, (max(1, round(height * shrink)), max(1, round(width * shrink))))
