"""All shards as one file that is nowhere stored as such: a list of pieces, of which any part can be read.

- tar: the shards without their ends, and one end.
- zip: the shards without their directories, and a directory of all, which is an object of its own.
- others: a tar whose members are the shards.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app import tars
from app.batches.containers import CONTAINERS
from app.storage import Storage
from app.tables import Batch, BatchShard, Document

# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.12 to 4.3.16 and 4.5.3
ENTRY = b"PK\x01\x02"
ENTRY_BYTES = 46
ZIP64 = 45  # the version that reads offsets beyond 32 bits
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class Piece:
    """`size` bytes: `data`, or the first ones of an object."""

    size: int
    data: bytes = b""
    key: str | None = None


def directory_key(run_key: str) -> str:
    """Where a claim stores the directory of a zip."""
    return f"{run_key}/directory"


def pieces(batch: Batch, shards: Sequence[BatchShard], directory: Document | None) -> list[Piece]:
    """The archive of all shards; `directory` ({"key", "size"}) is a zip's."""
    container = CONTAINERS[batch.options["container"]]
    if directory is not None:
        return [*(_body(shard) for shard in shards), Piece(directory["size"], key=directory["key"])]
    end = _literal(tars.END)
    if container.joins:
        return [*(_body(shard) for shard in shards), end]
    members = (
        (_literal(tars.header(shard_name(batch, shard), shard.size)), _body(shard), _literal(tars.padding(shard.size)))
        for shard in shards
    )
    return [*(piece for member in members for piece in member), end]


def shard_name(batch: Batch, shard: BatchShard) -> str:
    """Of its file, such as `00012.npz`."""
    return f"{shard.index:05d}.{CONTAINERS[batch.options['container']].extension}"


def size(parts: Iterable[Piece]) -> int:
    """Bytes of the archive."""
    return sum(piece.size for piece in parts)


def stream(storage: Storage, parts: Iterable[Piece], start: int, end: int) -> Iterator[bytes]:
    """The bytes [start, end) of the archive, in chunks. Raises NotFound when an object is no longer there."""
    before = 0
    for piece in parts:
        first, last = max(start - before, 0), min(end - before, piece.size)
        before += piece.size
        if first >= last:
            continue
        if piece.key is None:
            yield piece.data[first:last]
        else:
            yield from storage.stream(piece.key, first, last)


def write_directory(storage: Storage, shards: Sequence[BatchShard], path: Path) -> None:
    """The directory of a zip that begins with the bodies of these zips, made of theirs."""
    with path.open("wb") as file:
        base = count = 0
        for shard in shards:
            own = b"".join(storage.stream(shard.key, shard.body, shard.size))
            count += _write_entries(file, own, base)
            base += shard.body
        _write_end(file, count, base)


def _write_entries(file: BinaryIO, directory: bytes, base: int) -> int:
    """The entries of a zip that now begins at `base`; how many there are."""
    at = count = 0
    while directory.startswith(ENTRY, at):
        name, extra, comment = struct.unpack_from("<3H", directory, at + 28)
        (offset,) = struct.unpack_from("<L", directory, at + 42)
        end = at + ENTRY_BYTES + name + extra + comment
        entry = bytearray(directory[at:end])
        if base + offset < FULL32:
            struct.pack_into("<L", entry, 42, base + offset)
        else:
            struct.pack_into("<L", entry, 42, FULL32)
            struct.pack_into("<H", entry, 30, extra + 12)
            struct.pack_into("<H", entry, 6, ZIP64)
            place = ENTRY_BYTES + name
            entry[place:place] = struct.pack("<HHQ", 1, 8, base + offset)
        file.write(entry)
        at, count = end, count + 1
    return count


def _write_end(file: BinaryIO, count: int, start: int) -> None:
    """What closes the directory of `count` entries that begins at `start`."""
    length = file.tell()
    if count >= FULL16 or length >= FULL32 or start >= FULL32:
        file.write(
            struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, ZIP64, ZIP64, 0, 0, count, count, length, start)
            + struct.pack("<4sLQL", b"PK\x06\x07", 0, start + length, 1)
        )
    short = min(count, FULL16)
    file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, short, short, min(length, FULL32), min(start, FULL32), 0))


def _body(shard: BatchShard) -> Piece:
    return Piece(shard.body, key=shard.key)


def _literal(data: bytes) -> Piece:
    return Piece(len(data), data)
