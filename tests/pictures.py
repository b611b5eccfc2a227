"""Small random pictures, and what a file of one shows."""

import io

import numpy as np
from PIL import Image

CHANNELS = (1, 3, 4)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture(channels: int, *, height: int = 9, width: int = 13, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def decode(data: bytes, channels: int) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)
