"""What becomes of a request's pixels on the encoder threads."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.formats import Format, upscale

SLOW_FORMATS = frozenset({"avif"})  # which take much longer a pixel than all others
SLOW_BYTES = 2**20  # of one picture as it is sent: a larger one takes any format long

Describe = Callable[[int, int | None], str | None]  # a row of the request and its class to what its file says of itself


@dataclass(frozen=True, eq=False)
class Encoding:
    """A format, with what the file of each row says of itself; `scale` repeats each pixel."""

    format: Format
    describe: Describe
    scale: int = 1

    def like(self, other: "Encoding | None") -> bool:
        """Whether rows of both can be encoded together."""
        return other is not None and self.format is other.format and self.scale == other.scale

    def slow(self, picture_bytes: int) -> bool:
        """Whether pictures of this size take so long that others should not wait for them."""
        return self.format.name in SLOW_FORMATS or picture_bytes > SLOW_BYTES

    def encode(self, images: NDArray[np.uint8], texts: list[str | None]) -> list[bytes]:
        """A file for each of uint8 [n, H, W, C]."""
        return self.format.encode_many(upscale(images, self.scale), texts)
