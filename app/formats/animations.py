"""Animations: samples that follow one another in one file. A format is one entry in the table.

The same frames always encode to the same bytes. A WebP has every pixel of every frame. A GIF has 256 colours a frame, the best
for it, which gray pictures never need more of, and lays transparency over white; it is for what cannot show a WebP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from app.errors import FieldError, Invalid
from app.formats.films import FILM_PIXELS, FRAME_PIXELS, MAX_FRAMES
from app.formats.grids import upscale
from app.formats.through_pillow import image_of

REST_MILLISECONDS = 1000  # how long the last frame stays, at the least, where the film does not come round
HUNDREDTH = 10  # milliseconds: what a GIF counts in
LEAST_HUNDREDTHS = 2  # of a frame: what is less, browsers take for a tenth of a second

Frames = NDArray[np.uint8]  # [n, height, width, channels]


@dataclass(frozen=True)
class Animation:
    """How frames become a file that shows them again and again."""

    name: str
    media_type: str
    encoder: str  # library, version and settings: whatever decides the bytes
    write: Callable[[list[Image.Image], list[int]], bytes]  # frames and the milliseconds of each

    def encode(self, frames: Frames, fps: float, *, scale: int = 1, round_trip: bool = True) -> bytes:
        """A file of uint8 [n, H, W, C], each pixel repeated `scale` times; without a `round_trip` the last frame stays for a while.

        `check_animation` comes before.
        """
        milliseconds = [max(1, round(1000 / fps))] * len(frames)
        if not round_trip:
            milliseconds[-1] = max(milliseconds[-1], REST_MILLISECONDS)
        return self.write([image_of(upscale(frame, scale)) for frame in frames], milliseconds)


def _webp(frames: list[Image.Image], milliseconds: list[int]) -> bytes:
    images = [frame.convert("RGB") if frame.mode == "L" else frame for frame in frames]
    return _save(images, "WEBP", duration=milliseconds, lossless=True, method=0, quality=0)


def _gif(frames: list[Image.Image], milliseconds: list[int]) -> bytes:
    images = [_few_colours(frame) for frame in frames]
    durations = [max(LEAST_HUNDREDTHS, round(each / HUNDREDTH)) * HUNDREDTH for each in milliseconds]
    return _save(images, "GIF", duration=durations, optimize=False)


def _few_colours(frame: Image.Image) -> Image.Image:
    if frame.mode == "RGBA":
        frame = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB")
    return frame if frame.mode == "L" else frame.quantize(256)


def _save(images: list[Image.Image], name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    images[0].save(buffer, name, save_all=True, append_images=images[1:], loop=0, **options)
    return buffer.getvalue()


_PILLOW = f"pillow {PIL.__version__}"

ANIMATIONS: dict[str, Animation] = {
    entry.name: entry
    for entry in (
        Animation("webp", "image/webp", f"{_PILLOW} libwebp {features.version('webp')} lossless method 0", _webp),
        Animation("gif", "image/gif", f"{_PILLOW} 256 colours", _gif),
    )
}


def check_animation(frames: int, *, height: int, width: int, scale: int) -> None:
    """Raise Invalid when there would be more frames, larger ones, or more pixels in all than a film may have."""
    high, wide = height * scale, width * scale
    if high * wide > FRAME_PIXELS:
        raise _too_large(
            "scale", f"A frame of {wide} x {high} pixels is more than the {FRAME_PIXELS} that one may have"
        )
    most = min(MAX_FRAMES, FILM_PIXELS // (high * wide))
    if frames > most:
        raise _too_large(
            "frames", f"{frames} frames of {wide} x {high} pixels are more than the {most} that a film may have"
        )


def _too_large(field: str, detail: str) -> Invalid:
    return Invalid(f"{detail}: ask for fewer, or a smaller scale.", errors=[FieldError(f"#/{field}", detail)])


def find_animation(name: str) -> Animation:
    """The format of that name. Raises ValueError, saying what there is."""
    if name not in ANIMATIONS:
        why = "an encoder of video is not part of this service; " if name == "mp4" else ""
        raise ValueError(f"{name!r} cannot be made here: {why}there are {', '.join(ANIMATIONS)}")
    return ANIMATIONS[name]
