"""Output formats: what a sample looks like on the wire. A format is one entry in `FORMATS`.

The same array always encodes to the same bytes: nothing of time or place goes in, and `encoder`, which is part of every ETag,
names the library's version and the settings. Samples are uint8 [height, width, channels] with 1 (gray), 3 (RGB) or 4 (RGBA)
channels.

Choices, measured at 28 to 256 px: PNG at level 1 is up to three times as fast as zlib's default for a few per cent more bytes;
WebP is lossless, so that it is the same picture as the PNG, smaller and faster from 32 px on, where lossy WebP would halve the
resolution of colour; JPEG keeps colour at full resolution (4:4:4) for the same reason.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

from app.errors import FieldError, Invalid

Image.preinit()  # else the first request would wait while Pillow imports its plugins
assert WebPImagePlugin.SUPPORTED

Picture = NDArray[np.uint8]  # [height, width, channels]

MAX_PIXELS = 2**24  # of one grid: 4096 x 4096
MAX_FRAMES = 240  # of a film
FRAME_PIXELS = 2**20  # of one frame: 1024 x 1024
FILM_PIXELS = 2**26  # of all frames together, which lie in memory at once: at most 256 MiB


@dataclass(frozen=True)
class Format:
    """How one sample becomes bytes."""

    name: str
    media_type: str
    extension: str
    encoder: str  # library, version and settings: whatever decides the bytes
    longest_side: int  # pixels
    encode: Callable[[Picture], bytes]


def encode_png(picture: Picture) -> bytes:
    """PNG of 1, 3 or 4 channels."""
    return _save(_image(picture), "PNG", compress_level=1)


def encode_jpeg(picture: Picture) -> bytes:
    """JPEG of 1 or 3 channels; it knows no transparency, so 4 are laid over white."""
    return _save(_over_white(_image(picture)), "JPEG", quality=90, subsampling="4:4:4")


def encode_webp(picture: Picture) -> bytes:
    """Lossless WebP: exactly the pixels of the PNG, also where they are transparent. Gray is stored as RGB."""
    return _save(_image(picture), "WEBP", lossless=True, method=0, quality=0, exact=True)


_PILLOW = f"pillow {PIL.__version__}"

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("png", "image/png", "png", f"{_PILLOW} level 1", 2**31 - 1, encode_png),
        Format("jpeg", "image/jpeg", "jpg", f"{_PILLOW} quality 90 4:4:4 over white", 65_500, encode_jpeg),
        Format("webp", "image/webp", "webp", f"{_PILLOW} lossless method 0 exact", 16_383, encode_webp),
    )
}
BY_EXTENSION = {entry.extension: entry for entry in FORMATS.values()}
BY_MEDIA_TYPE = {entry.media_type: entry for entry in FORMATS.values()}


def encode(picture: Picture, name: str) -> bytes:
    """The bytes of a picture in the format of that name, a key of FORMATS."""
    return FORMATS[name].encode(picture)


def check_grid(n: int, columns: int, scale: int, *, height: int, width: int, format: Format) -> None:  # noqa: A002
    """Raise Invalid when a grid of `n` samples would be larger than any grid, or this format, may be."""
    rows, across = -(-n // columns), min(n, columns)
    high, wide = rows * height * scale, across * width * scale
    if high * wide > MAX_PIXELS:
        detail = f"A grid of {wide} x {high} pixels is more than the {MAX_PIXELS} that one picture may have"
    elif max(high, wide) > format.longest_side:
        detail = (
            f"A grid of {wide} x {high} pixels: a side of a {format.name} picture has at most {format.longest_side}"
        )
    else:
        return
    raise Invalid(
        f"{detail}: ask for fewer seeds or a smaller scale.", errors=[FieldError("#/seeds", "too large a grid")]
    )


def film_frames(png: bytes) -> int:
    """How many pictures of the size of this PNG one film may show: the larger they are, the fewer."""
    width, height = Image.open(BytesIO(png)).size
    return min(MAX_FRAMES, FILM_PIXELS // min(width * height, FRAME_PIXELS))


def timelapse(pngs: Iterable[bytes], fps: float) -> bytes:
    """An animated, endless, lossless WebP of at least one PNG, all of one size; the last frame stays for a second.

    Pictures of more than FRAME_PIXELS are shrunk to that. No more than `film_frames` should be given.
    """
    frames = [_frame(png) for png in pngs]
    if not frames:
        raise ValueError("a timelapse needs at least one picture")
    milliseconds = max(1, round(1000 / fps))
    durations = [*[milliseconds] * (len(frames) - 1), max(milliseconds, 1000)]
    lossless = {"lossless": True, "method": 0, "quality": 0}
    return _save(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, **lossless)


def _frame(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    frame = image.convert("RGBA" if image.mode in {"RGBA", "LA"} else "RGB")
    shrink = math.sqrt(FRAME_PIXELS / (frame.width * frame.height))
    return (
        frame if shrink >= 1 else frame.resize((max(1, int(frame.width * shrink)), max(1, int(frame.height * shrink))))
    )


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _save(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
