"""A member of an archive: a name that is safe to show, and where its bytes lie. Members are read and never written to disk.

Archives are untrusted input. Nothing here opens a path that came out of an archive; a name serves to tell classes apart, to
sort and to report. Sizes in headers are promises: what is read is counted, and a member that breaks its promise is corrupt.
"""

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

PIECE_BYTES = 1 << 20
LONGEST_PATH = 1024
TICK_ENTRIES = 64  # members or lines from one tick to the next
ZIP_LOCAL_HEADER_BYTES = 30


class DataError(Exception):
    """What is wrong with the data, in words for whoever uploaded it. `code` is stable and meant for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class CorruptMember(Exception):
    """One member cannot be read; its text is the reason. The rest of the archive may be sound."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may make us do. Bytes are uncompressed bytes; `ratio` is that of the whole archive."""

    members: int = 2_000_000
    total_bytes: int = 64 * 2**30
    member_bytes: int = 256 * 2**20
    ratio: int = 200
    pixels: int = 100_000_000
    prepared_bytes: int = 16 * 2**30


class Method(IntEnum):
    """How a member's bytes are stored: as they are, or behind a local header of a zip."""

    RAW = 0
    ZIP_STORED = 1
    ZIP_DEFLATED = 2


class Member(NamedTuple):
    """`stored` bytes from `offset` on (for the zip methods: from the local header on) that unpack to `size` bytes."""

    path: str
    offset: int
    stored: int
    size: int
    method: Method
    crc: int


def quote(name: str) -> str:
    """A name from an archive as it may stand in a message: printable, and not long."""
    return ascii(name if len(name) <= 120 else f"{name[:100]}...{name[-15:]}")


def safe_path(name: str) -> str:
    """The normalised relative path of a member; DataError `unsafe_path` if it could lead out of a folder."""
    reason = None
    if name.startswith("/"):
        reason = "is an absolute path"
    elif re.match(r"[A-Za-z]:", name):
        reason = "begins with a drive letter"
    elif "\\" in name:
        reason = "contains a backslash"
    elif "\0" in name:
        reason = "contains a NUL character"
    elif ".." in name.split("/"):
        reason = "leads out of the folder"
    elif len(name) > LONGEST_PATH:
        reason = f"is longer than {LONGEST_PATH} characters"
    if reason:
        raise DataError(
            "unsafe_path",
            f"the archive has a member whose name {reason}: {quote(name)}. Pack the folder again with plain relative"
            ' names, for example by "zip -r images.zip folder".',
        )
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def read_member(fd: int, member: Member) -> bytes:
    """All bytes of a member, exactly `member.size` of them; raises CorruptMember."""
    return b"".join(stream_member(fd, member))


def stream_member(fd: int, member: Member) -> Iterator[bytes]:
    """The bytes of a member in pieces of at most a few MiB; raises CorruptMember, at the latest after the last piece.

    Reads by position, so that threads and processes can share a file.
    """
    if member.method is Method.RAW:
        yield from _stored(fd, member.offset, member.stored)
        return
    crc = produced = 0
    blocks = _stored(fd, _data_offset(fd, member), member.stored)
    for piece in blocks if member.method is Method.ZIP_STORED else _inflated(blocks):
        produced += len(piece)
        if produced > member.size:
            raise CorruptMember("it unpacks to more than its header says")
        crc = zlib.crc32(piece, crc)
        yield piece
    if produced < member.size:
        raise CorruptMember("it is cut short")
    if crc != member.crc:
        raise CorruptMember("its checksum is wrong")


def _data_offset(fd: int, member: Member) -> int:
    header = os.pread(fd, ZIP_LOCAL_HEADER_BYTES, member.offset)
    if len(header) < ZIP_LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise CorruptMember("its header in the archive is damaged")
    name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return member.offset + ZIP_LOCAL_HEADER_BYTES + name_bytes + extra_bytes


def _stored(fd: int, offset: int, count: int) -> Iterator[bytes]:
    while count:
        block = os.pread(fd, min(count, PIECE_BYTES), offset)
        if not block:
            raise CorruptMember("it is cut short")
        yield block
        offset += len(block)
        count -= len(block)


def _inflated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for block in blocks:
            rest = block
            while True:
                piece = inflate.decompress(rest, PIECE_BYTES)
                rest = inflate.unconsumed_tail
                if piece:
                    yield piece
                if not rest and len(piece) < PIECE_BYTES:
                    break
    except zlib.error as error:
        raise CorruptMember("its compressed data is damaged") from error
