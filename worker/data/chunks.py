"""What the processes of a preparation do with one chunk of images: look at headers, or decode into the file of examples."""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.data.images import Decoded, Frame, Header, Target, decode, from_frame, read_header
from worker.data.members import CorruptMember, Member, read_member

Chunk = list[tuple[int, Member]]  # the members' ids in the index with them


class Source(NamedTuple):
    """The file that members lie in; `frame` is set when they are raw pixels. `uploaded` are the bytes that it was unpacked from."""

    path: Path
    frame: Frame | None
    max_pixels: int
    uploaded: int


class HeaderTask(NamedTuple):
    source: Source
    chunk: Chunk


class DecodeTask(NamedTuple):
    """Decode a chunk into `out`, the first row at byte `offset`."""

    source: Source
    chunk: Chunk
    target: Target
    out: Path
    offset: int


@dataclass
class Headers:
    """What the headers of a chunk say. `sizes` are of (width, height)."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    with_alpha: int = 0
    with_colour: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Headers") -> None:
        self.sizes += other.sizes
        self.with_alpha += other.with_alpha
        self.with_colour += other.with_colour


@dataclass
class Examples:
    """What decoding a chunk found. `digests` and `sound` have an entry for each image; `transparent` are those that use their alpha."""

    digests: NDArray[np.uint64]
    sound: NDArray[np.bool_]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    coloured: bool = False
    transparent: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


def read_headers(task: HeaderTask) -> Headers:
    """Look at images without decoding them."""
    source, chunk = task
    found = Headers()
    with source.path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # of Pillow, about the file
        for member_id, member in chunk:
            try:
                header = _header(source, file.fileno(), member)
            except CorruptMember as error:
                found.bad.append((member_id, str(error)))
                continue
            found.sizes[header.width, header.height] += 1
            found.with_alpha += header.has_alpha
            found.with_colour += header.has_colour
    return found


def decode_chunk(task: DecodeTask) -> Examples:
    """Decode images and write them; the rows of those that cannot be decoded are zeros."""
    source, chunk, target, out, offset = task
    shape = (len(chunk), target.height, target.width, target.channels)
    rows = np.zeros(shape, np.uint8)
    found = Examples(np.zeros(len(chunk), np.uint64), np.ones(len(chunk), np.bool_))
    with source.path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        for row, (member_id, member) in enumerate(chunk):
            try:
                decoded = _decoded(source, target, file.fileno(), member)
            except CorruptMember as error:
                found.bad.append((member_id, str(error)))
                found.sound[row] = False
                continue
            rows[row] = decoded.pixels
            found.digests[row] = int.from_bytes(sha256(rows[row]).digest()[:8], "little")
            found.sizes[decoded.width, decoded.height] += 1
            found.conversions.update(decoded.conversions)
    _look_at_channels(rows[found.sound], found)
    with out.open("r+b", buffering=0) as file:
        write_at(file.fileno(), rows, offset)
    return found


def write_at(fd: int, rows: NDArray[np.uint8], offset: int) -> None:
    """Write all of a C-contiguous array at a position."""
    rest = rows.data.cast("B")
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def _header(source: Source, fd: int, member: Member) -> Header:
    if source.frame is not None:
        height, width, channels, _ = source.frame
        return Header(width, height, channels in {2, 4}, channels > 2)
    return read_header(read_member(fd, member), source.max_pixels)


def _decoded(source: Source, target: Target, fd: int, member: Member) -> Decoded:
    data = read_member(fd, member)
    return decode(data, target, source.max_pixels) if source.frame is None else from_frame(data, source.frame, target)


def _look_at_channels(rows: NDArray[np.uint8], found: Examples) -> None:
    channels = rows.shape[3]
    if channels >= 3:
        found.coloured = bool((rows[..., 0] != rows[..., 1]).any() or (rows[..., 1] != rows[..., 2]).any())
    if channels == 4:
        found.transparent = int((rows[..., 3] != 255).any(axis=(1, 2)).sum())
