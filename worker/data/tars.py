"""Members of a tar, plain or compressed.

A compressed tar can only be read from front to back, so it is unpacked once, as one stream, into a spool file: from then on both
are a plain tar, where a member is a stretch of bytes that any process can read.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from worker.data.members import PIECE_BYTES, TICK_ENTRIES, DataError, Limits, Member, Method, quote, safe_path
from worker.data.tar_headers import DAMAGED, Headers, check_global
from worker.data.zips import check_total

XZ_MEMORY_BYTES = 256 * 2**20
XZ_BLOCK_BYTES = 1 << 14  # what is left of it is copied for each of the streams in it, of 32 bytes at least
# What tarfile raises on crafted headers besides its own: numbers that are none, chains of headers without end, absurd offsets.
HEADER_ERRORS = (tarfile.TarError, ValueError, LookupError, RecursionError, OverflowError, EOFError)


def tar_members(path: Path, limits: Limits, tick: Callable[[], None]) -> Iterator[Member]:
    """Members of a plain tar in its order, without folders; `tick` is called now and then.

    Raises DataError: `not_an_archive`, `corrupt_archive`, `unsafe_path`, `unsafe_member`, `too_many_members`,
    `archive_too_large`, `large_headers`.
    """
    with path.open("rb") as file:
        file_bytes = path.stat().st_size
        headers = Headers(file)
        try:
            tar = tarfile.open(fileobj=headers, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115 - `file` is what closes
            count = position = total = 0
            while info := tar.next():
                tar.members.clear()  # it would remember every member
                headers.next_member()
                check_global(tar.pax_headers)
                if count % TICK_ENTRIES == 0:
                    tick()
                count += 1
                if count > limits.members:
                    raise DataError(
                        "too_many_members",
                        f"the archive has more than {limits.members} members, which is the limit. Split it up.",
                    )
                if info.size < 0 or tar.offset <= position or info.offset_data + info.size > file_bytes:
                    raise DataError("corrupt_archive", DAMAGED.format(f"{quote(info.name)} reaches beyond its end"))
                position = tar.offset
                total += info.size
                check_total(total, file_bytes, limits)
                if (member := _member(info)) is not None:
                    yield member
        except HEADER_ERRORS as error:
            raise DataError("corrupt_archive", DAMAGED.format("a header is unreadable")) from error
        # tarfile takes a bad header and a sudden end for the end of the archive; a whole one ends with blocks of zeros.
        file.seek(position)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError("corrupt_archive", DAMAGED.format("its end is missing"))


def _member(info: tarfile.TarInfo) -> Member | None:
    name = info.name.encode("utf-8", "surrogateescape")
    shown = name.decode("utf-8") if _is_utf8(name) else name.decode("latin-1")
    path = safe_path(shown)
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        raise DataError(
            "unsafe_member",
            f"{quote(shown)} is not a plain file but a link, a device or the like."
            ' Pack the folder again with the files themselves, for example by "tar --dereference --hard-dereference".',
        )
    return Member(path, info.offset_data, info.size, info.size, Method.RAW, 0)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def unpack_stream(path: Path, spool: Path, limits: Limits, tick: Callable[[], None]) -> None:
    """Unpack a .gz, .bz2 or .xz file into `spool`; `tick` is called between pieces.

    Raises DataError: `corrupt_archive`, `archive_too_large`, `compression_ratio`.
    """
    archive_bytes = path.stat().st_size
    total = 0
    try:
        with path.open("rb") as packed, spool.open("wb") as unpacked:
            for piece in _pieces(_Packed(packed, tick)):
                total += len(piece)
                check_total(total, archive_bytes, limits)
                unpacked.write(piece)
                tick()
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the decompressor's
            raise
        raise DataError("corrupt_archive", DAMAGED.format("its compressed data is unreadable")) from error


class _Packed:
    """A compressed file. `tick` is called as it is read: streams without content yield no piece, however many there are."""

    def __init__(self, file: BinaryIO, tick: Callable[[], None]) -> None:
        self._file, self._tick = file, tick
        self.seek, self.seekable = file.seek, file.seekable

    def read(self, count: int) -> bytes:
        self._tick()
        return self._file.read(count)


def _pieces(packed: _Packed) -> Iterator[bytes]:
    magic = packed.read(6)
    packed.seek(0)
    if magic == b"\xfd7zXZ\0":
        return _xz_pieces(packed)
    unpacked = gzip.GzipFile(fileobj=packed) if magic.startswith(b"\x1f\x8b") else bz2.BZ2File(packed)
    return iter(lambda: unpacked.read(PIECE_BYTES), b"")


def _xz_pieces(packed: _Packed) -> Iterator[bytes]:
    """As lzma.LZMAFile, but with a limit on the memory that a dictionary may take (up to 4 GiB otherwise)."""
    block = packed.read(XZ_BLOCK_BYTES)
    while block:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
        while not stream.eof:
            if stream.needs_input and not block:
                raise EOFError
            if piece := stream.decompress(block, PIECE_BYTES):
                yield piece
            block = packed.read(XZ_BLOCK_BYTES) if stream.needs_input else b""
        # Streams may follow one another, with zeros between them.
        block = stream.unused_data
        while not block.strip(b"\0") and (more := packed.read(XZ_BLOCK_BYTES)):
            block = more
        block = block.lstrip(b"\0")
