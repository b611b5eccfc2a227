"""Pictures for the eye: many samples in one, enlarged, with a caption under each."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.errors import FieldError, Invalid
from app.formats.table import Format
from models.pictures import tile

MAX_PIXELS = 2**24  # of one picture: 4096 x 4096
LONGEST_CAPTION = 24  # characters of a line; what is more is cut
FONT = ImageFont.load_default_imagefont()  # a bitmap, so that no library that draws outlines decides the pixels
LETTER_WIDTH, LINE_HEIGHT = 6, 12
MARGIN = 1  # pixels left of a caption and above it


def check_grid(
    n: int,
    columns: int,
    scale: int,
    *,
    height: int,
    width: int,
    format: Format,  # noqa: A002
    captions: Sequence[str] | None = None,
) -> None:
    """Raise Invalid when a grid of `n` samples would be larger than any grid, or this format, may be."""
    high, wide = grid_size(n, columns, scale, height=height, width=width, captions=captions)
    _check(high, wide, format, "A grid", "seeds", "fewer seeds or a smaller scale")


def grid_size(
    n: int, columns: int, scale: int, *, height: int, width: int, captions: Sequence[str] | None = None
) -> tuple[int, int]:
    """Height and width, in pixels, of a grid of `n` samples; `captions` as `grid` would draw them."""
    rows, across = -(-n // columns), min(n, columns)
    cell_height, cell_width = _cell(height * scale, width * scale, captions or ())
    return rows * cell_height, across * cell_width


def check_scale(scale: int, *, height: int, width: int, format: Format) -> None:  # noqa: A002
    """Raise Invalid when one sample, enlarged by `scale`, would be larger than any picture, or this format, may be."""
    _check(height * scale, width * scale, format, "A sample", "scale", "a smaller scale")


def _check(high: int, wide: int, format: Format, what: str, field: str, advice: str) -> None:  # noqa: A002
    if high * wide > MAX_PIXELS:
        detail = f"{what} of {wide} x {high} pixels is more than the {MAX_PIXELS} that one picture may have"
    elif max(high, wide) > format.longest_side:
        detail = (
            f"{what} of {wide} x {high} pixels: a side of a {format.name} picture has at most {format.longest_side}"
        )
    else:
        return
    raise Invalid(f"{detail}: ask for {advice}.", errors=[FieldError(f"#/{field}", "too large a picture")])


def upscale(pictures: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """uint8 [..., H, W, C] with each pixel repeated `scale` times down and across. `check_scale` comes before."""
    return pictures if scale == 1 else pictures.repeat(scale, axis=-3).repeat(scale, axis=-2)


def captions(seeds: Sequence[int], class_names: Sequence[str | None]) -> list[str]:
    """What stands under each tile: the class, if there is one, and the seed in a line below, as `#7`, for classes may be numbers."""
    return [f"#{seed}" if name is None else f"{name}\n#{seed}" for seed, name in zip(seeds, class_names, strict=True)]


def grid(
    images: NDArray[np.uint8], columns: int, texts: Sequence[str] | None = None, *, scale: int = 1
) -> NDArray[np.uint8]:
    """One picture uint8 [H', W', C] of samples uint8 [n, H, W, C], as `tile` makes it, perhaps with captions: in white on black
    under each.

    Tiles are as wide as the widest caption, so that none is cut to another number. Letters beyond Latin-1 are drawn as `?`.
    """
    if texts is None:
        return tile(images, columns, scale=scale)
    n, height, width, channels = images.shape
    high, wide = height * scale, width * scale
    cell_height, cell_width = _cell(high, wide, texts)
    cells = np.zeros((n, cell_height, cell_width, channels), np.uint8)
    if channels == 4:
        cells[:, high:, :, 3] = 255
    left = (cell_width - wide) // 2
    cells[:, :high, left : left + wide] = upscale(images, scale)
    for cell, text in zip(cells, texts, strict=True):
        cell[high:, :, : min(channels, 3)] = _drawn(text, cell_height - high, cell_width)[:, :, np.newaxis]
    return tile(cells, columns)


def _cell(high: int, wide: int, texts: Sequence[str]) -> tuple[int, int]:
    """Height and width of a tile of high x wide pixels with its caption."""
    lines = [line for text in texts for line in _lines(text)]
    if not lines:
        return high, wide
    most = max(len(_lines(text)) for text in texts)
    longest = max(map(len, lines))
    return high + MARGIN + most * LINE_HEIGHT, max(wide, 2 * MARGIN + longest * LETTER_WIDTH)


@lru_cache(4096)
def _lines(text: str) -> tuple[str, ...]:
    """As they are drawn."""
    known = text.encode("latin-1", "replace").decode("latin-1").split("\n")
    return tuple(line if len(line) <= LONGEST_CAPTION else f"{line[: LONGEST_CAPTION - 2]}.." for line in known)


def _drawn(text: str, high: int, wide: int) -> NDArray[np.uint8]:
    strip = Image.new("L", (wide, high))
    draw = ImageDraw.Draw(strip)
    draw.fontmode = "1"
    for index, line in enumerate(_lines(text)):
        left = (wide - len(line) * LETTER_WIDTH) // 2
        draw.text((left, MARGIN + index * LINE_HEIGHT), line, 255, font=FONT)
    return np.asarray(strip)
