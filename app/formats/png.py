"""PNG (ISO/IEC 15948): the container in Python around ISA-L's deflate.

For small pictures nearly all of the time that a general library takes is its own: setting up zlib and the call for each row. Here
the filter runs over many pictures at once, in numpy, and one call deflates a whole picture without the interpreter's lock.
`bench/encoders.py` measures it beside the others.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from app.formats.metadata import KEYWORD, SOFTWARE

LEVEL = 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels
UP, AVERAGE = 2, 3  # filters: what is subtracted is the pixel above, or the mean of that and the one to the left
TOGETHER_BYTES = 2**18  # of pictures that are filtered at once: they stay in the cache


def chunk(kind: bytes, data: bytes) -> bytes:
    """Length, type, content, CRC."""
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", isal_zlib.crc32(data, crc32(kind)))))


END = chunk(b"IEND", b"")
SOFTWARE_CHUNK = chunk(b"tEXt", b"Software\0" + SOFTWARE.encode())
TEXT_KEYWORD = KEYWORD.encode() + b"\0"


def write(pictures: NDArray[np.uint8], provenances: Sequence[str | None]) -> list[bytes]:
    """A PNG for each of uint8 [n, H, W, C]."""
    n, height, width, channels = pictures.shape
    head = _head(height, width, channels)
    step = max(1, TOGETHER_BYTES // max(1, height * width * channels))
    files = []
    for start in range(0, n, step):
        rows = filtered(pictures[start : start + step])
        for picture, text in zip(rows, provenances[start : start + step], strict=True):
            said = b"" if text is None else SOFTWARE_CHUNK + chunk(b"tEXt", TEXT_KEYWORD + text.encode("ascii"))
            files.append(b"".join((head, said, chunk(b"IDAT", isal_zlib.compress(picture, LEVEL)), END)))
    return files


def filtered(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is deflated: [n, H, 1 + W * C], each row behind its filter's number. Up is the better one for gray, average for colour;
    Paeth's saves a few per cent more and costs more than deflating.
    """
    n, height, width, channels = pictures.shape
    pixels = pictures.reshape(n, height, width * channels)
    rows = np.empty((n, height, 1 + width * channels), np.uint8)
    rows[:, :, 0] = UP if channels == 1 else AVERAGE
    above = np.zeros_like(pixels)
    above[:, 1:] = pixels[:, :-1]
    np.subtract(pixels, above if channels == 1 else _means(pixels, above, channels), out=rows[:, :, 1:])
    return rows


def _means(pixels: NDArray[np.uint8], above: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Of the pixel above and the one to the left, rounded down, without leaving 8 bits."""
    left = np.zeros_like(pixels)
    left[:, :, channels:] = pixels[:, :, :-channels]
    return (left & above) + ((left ^ above) >> 1)


@lru_cache(256)
def _head(height: int, width: int, channels: int) -> bytes:
    """Up to and with IHDR: 8 bits, no interlacing."""
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0))
