"""WebP and AVIF, by Pillow: what it adds is little beside what their encoders take, even at their fastest."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

from app.formats.metadata import XMP, exif

Image.preinit()  # else the first request would wait while Pillow imports its plugins
assert WebPImagePlugin.SUPPORTED

AVIF_SPEED = 10  # the fastest; slower ones take up to five times as long for a few per cent


def write_webp(pictures: NDArray[np.uint8], provenances: Sequence[str | None], *, quality: int | None) -> list[bytes]:
    """A WebP for each of uint8 [n, H, W, C]; without a quality exactly the pixels of the PNG, also where they are transparent.

    Gray is stored as RGB.
    """
    if quality is None:
        return _save_all(pictures, provenances, "WEBP", lossless=True, method=0, quality=0, exact=True)
    return _save_all(pictures, provenances, "WEBP", method=0, quality=quality)


def write_avif(pictures: NDArray[np.uint8], provenances: Sequence[str | None], *, quality: int) -> list[bytes]:
    """An AVIF for each of uint8 [n, H, W, C]. One thread each: how many there are would decide the bytes."""
    sampling = "4:0:0" if pictures.shape[3] == 1 else "4:4:4"
    options = {"quality": quality, "speed": AVIF_SPEED, "subsampling": sampling, "max_threads": 1}
    return _save_all(pictures, provenances, "AVIF", **options)


def _save_all(pictures: NDArray[np.uint8], provenances: Sequence[str | None], name: str, **options: Any) -> list[bytes]:
    files = []
    for picture, text in zip(pictures, provenances, strict=True):
        said = {} if text is None else {"exif": exif(text), "xmp": XMP}
        buffer = BytesIO()
        image_of(picture).save(buffer, name, **options, **said)
        files.append(buffer.getvalue())
    return files


def image_of(picture: NDArray[np.uint8]) -> Image.Image:
    """Pillow's image of uint8 [H, W, C]."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
