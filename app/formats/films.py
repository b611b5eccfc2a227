"""Films: an animated WebP of pictures of progress."""

import math
from collections.abc import Iterable
from io import BytesIO

from PIL import Image

MAX_FRAMES = 240  # of a film
FRAME_PIXELS = 2**20  # of one frame: 1024 x 1024
FILM_PIXELS = 2**26  # of all frames together, which lie in memory at once: at most 256 MiB


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
    buffer = BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, **lossless)
    return buffer.getvalue()


def _frame(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    frame = image.convert("RGBA" if image.mode in {"RGBA", "LA"} else "RGB")
    shrink = math.sqrt(FRAME_PIXELS / (frame.width * frame.height))
    return (
        frame if shrink >= 1 else frame.resize((max(1, int(frame.width * shrink)), max(1, int(frame.height * shrink))))
    )
