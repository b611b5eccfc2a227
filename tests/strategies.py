"""Images and archives for tests: strategies that draw them, and builders that write them, sound or crafted."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SIDES = st.integers(1, 24)
# Names that mean nothing to an operating system, a zip or the layout rules.
NAMES = st.text("abcdefgxyz0123456789_- äöé雪", min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and name.lower() not in {"train", "training"}
)


def pixels(channels: int, sides: st.SearchStrategy[int] = SIDES) -> st.SearchStrategy[Pixels]:
    """uint8 [H, W] for one channel, else [H, W, C]."""
    last = () if channels == 1 else (channels,)
    return st.tuples(sides, sides).flatmap(lambda size: nps.arrays(np.uint8, (*size, *last)))


def encode(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def gray(value: int, height: int = 8, width: int = 8) -> bytes:
    """A PNG of one gray."""
    return encode(np.full((height, width), value, np.uint8))


def distinct(count: int, side: int = 8) -> list[bytes]:
    """So many PNGs, no two alike."""
    numbers = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 4)
    return [encode(np.resize(number, (side, side))) for number in numbers]


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name  # ZipInfo would mend some of the names that we want as they are
            info.compress_type = compression
            archive.writestr(info, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(data, bytes):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(info)
    return path


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of exactly these chunks, with right checksums and whatever they say."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> bytes:
    """IHDR of an 8 bit gray PNG."""
    return struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
