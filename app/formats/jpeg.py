"""JPEG by libjpeg-turbo, called without a file object between, which for small pictures costs more than the encoding.

Colour stays at full resolution (4:4:4). The format knows no transparency, so 4 channels are laid over white.
"""

import struct
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from app.formats.metadata import XMP, exif

APP1 = b"\xff\xe1"
BEFORE_APP1 = 20  # bytes of SOI and JFIF's APP0, which every file begins with


def segment(content: bytes) -> bytes:
    """An APP1 segment; its length counts itself."""
    return APP1 + struct.pack(">H", len(content) + 2) + content


XMP_SEGMENT = segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)


def write(pictures: NDArray[np.uint8], provenances: Sequence[str | None], *, quality: int) -> list[bytes]:
    """A JPEG for each of uint8 [n, H, W, C]."""
    return [_one(picture, text, quality) for picture, text in zip(pictures, provenances, strict=True)]


def _one(picture: NDArray[np.uint8], text: str | None, quality: int) -> bytes:
    if picture.shape[2] == 4:
        picture = over_white(picture)
    space, sampling = ("GRAY", "Gray") if picture.shape[2] == 1 else ("RGB", "444")
    pixels = np.ascontiguousarray(picture)
    data: bytes = simplejpeg.encode_jpeg(
        pixels, quality=quality, colorspace=space, colorsubsampling=sampling, fastdct=False
    )
    if text is None:
        return data
    said = segment(b"Exif\0\0" + exif(text))
    return b"".join((data[:BEFORE_APP1], said, XMP_SEGMENT, data[BEFORE_APP1:]))


def over_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB [H, W, 3] of RGBA [H, W, 4]."""
    image = Image.fromarray(picture)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
