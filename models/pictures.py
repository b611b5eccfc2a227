"""Many samples in one picture; pictures of untrusted origin."""

import io

import numpy as np
from numpy.typing import NDArray

GAP_GRAY = 64


class CountedReads(io.BytesIO):
    """The bytes of a picture, which end the reading of one that is made of very many tiny parts: Pillow takes each in Python.

    Beyond `most` reads it raises `refusal`.
    """

    def __init__(self, data: bytes, most: int, refusal: Exception) -> None:
        super().__init__(data)
        self._left = most
        self._refusal = refusal

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise self._refusal
        return super().read(size)


def tile(images: NDArray[np.uint8], columns: int, *, scale: int = 1, gap: int = 0) -> NDArray[np.uint8]:
    """One picture uint8 [H', W', C] of samples uint8 [n, H, W, C], row by row, each pixel repeated `scale` times.

    `gap` is the width of the gray lines between them, in pixels of the picture. Cells that are left over are black, and
    transparent with 4 channels.
    """
    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    high, wide = height * scale, width * scale
    cells = np.zeros((rows * columns, high + gap, wide + gap, channels), np.uint8)
    cells[:n, :high, :wide] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    for line in (cells[:, high:], cells[:, :, wide:]):
        line[...] = GAP_GRAY
        if channels == 4:
            line[..., 3] = 255
    picture = cells.reshape(rows, columns, high + gap, wide + gap, channels).swapaxes(1, 2)
    picture = picture.reshape(rows * (high + gap), columns * (wide + gap), channels)
    return picture[: rows * (high + gap) - gap, : columns * (wide + gap) - gap]
