"""The directory of a zip, read as a stream.

`zipfile` keeps about a kilobyte for each member of an archive; a directory of millions of images has to be read in constant
memory. It also trusts what is checked here: members that overlap, links, encryption, and names cut at a NUL.
Format: PKWARE APPNOTE 6.3.10, sections 4.3.12 (directory), 4.3.14 to 4.3.16 (its end), 4.4.4 (flags), 4.5.3 (zip64).
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from worker.data.members import (
    TICK_ENTRIES,
    ZIP_LOCAL_HEADER_BYTES,
    DataError,
    Limits,
    Member,
    Method,
    quote,
    safe_path,
)

ENTRY = struct.Struct("<4sH2x2H4x3L3H4x2L")
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
ENCRYPTED = 0x1 | 0x40 | 0x2000  # traditional, strong, and a hidden directory
UNIX = 3
METHODS = {0: Method.ZIP_STORED, 8: Method.ZIP_DEFLATED}
IN_ZIP64 = 0xFFFFFFFF
RATIO_FLOOR_BYTES = 64 * 2**20  # below this a high ratio is a few flat images, and harmless


class _Directory(NamedTuple):
    offset: int
    size: int
    entries: int


def zip_members(path: Path, limits: Limits, tick: Callable[[], None]) -> Iterator[Member]:
    """Members in the order of the directory, without folders; `tick` is called now and then.

    Raises DataError: `corrupt_archive`, `encrypted_archive`, `unsafe_path`, `unsafe_member`, `unsupported_compression`,
    `too_many_members`, `archive_too_large`, `compression_ratio`.
    """
    with path.open("rb") as file:
        archive_bytes = os.fstat(file.fileno()).st_size
        directory = _find_directory(file, archive_bytes)
        if directory.entries > limits.members:
            raise DataError(
                "too_many_members",
                f"the archive has {directory.entries} members; at most {limits.members} are allowed. Split it up.",
            )
        file.seek(directory.offset)
        total = 0
        for number in range(directory.entries):
            if number % TICK_ENTRIES == 0:
                tick()
            member = _read_entry(file, directory)
            if member is None:
                continue
            total += member.size
            check_total(total, archive_bytes, limits)
            yield member
        if file.tell() != directory.offset + directory.size:
            raise _corrupt("its directory has another length than it says")


def check_total(total: int, archive_bytes: int, limits: Limits) -> None:
    """Raises DataError when an archive unpacks to too much, absolutely or for its own size."""
    if total > limits.total_bytes:
        raise DataError(
            "archive_too_large",
            f"the archive unpacks to more than {limits.total_bytes} bytes, which is the limit. Split it up or shrink the images.",
        )
    if total > max(RATIO_FLOOR_BYTES, limits.ratio * archive_bytes):
        raise DataError(
            "compression_ratio",
            f"the archive unpacks to more than {limits.ratio} times its size, as no folder of photographs does."
            " If the images are real, store them as PNG or JPEG.",
        )


def _corrupt(what: str) -> DataError:
    return DataError("corrupt_archive", f"the zip archive is damaged or cut short: {what}. Pack and upload it again.")


def _find_directory(file: BinaryIO, archive_bytes: int) -> _Directory:
    tail_start = max(0, archive_bytes - END.size - 0xFFFF)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + END.size <= len(tail):
            _, disk, first_disk, _, entries, size, offset, comment_bytes = END.unpack_from(tail, at)
            if at + END.size + comment_bytes == len(tail):
                break
        at = tail.rfind(b"PK\x05\x06", 0, at)
    else:
        raise _corrupt("its directory is missing")
    end = tail_start + at
    if 0xFFFF in {disk, entries} or IN_ZIP64 in {size, offset}:
        return _find_directory64(file, end)
    if disk or first_disk:
        raise _corrupt("it is one part of several; join the parts first")
    return _check_place(_Directory(offset, size, entries), end)


def _find_directory64(file: BinaryIO, end: int) -> _Directory:
    file.seek(max(0, end - LOCATOR64.size))
    locator = file.read(LOCATOR64.size)
    if not locator.startswith(b"PK\x06\x07") or len(locator) < LOCATOR64.size:
        raise _corrupt("its directory is missing")
    _, _, end64, _ = LOCATOR64.unpack(locator)
    if end64 > end:
        raise _corrupt("its directory is missing")
    file.seek(end64)
    record = file.read(END64.size)
    if not record.startswith(b"PK\x06\x06") or len(record) < END64.size:
        raise _corrupt("its directory is missing")
    _, _, _, _, disk, first_disk, _, entries, size, offset = END64.unpack(record)
    if disk or first_disk:
        raise _corrupt("it is one part of several; join the parts first")
    return _check_place(_Directory(offset, size, entries), end64)


def _check_place(directory: _Directory, end: int) -> _Directory:
    if directory.offset + directory.size != end or directory.entries * ENTRY.size > directory.size:
        raise _corrupt("its directory is not where it should be")
    return directory


def _read_entry(file: BinaryIO, directory: _Directory) -> Member | None:
    """The next member; None for a folder."""
    fixed = file.read(ENTRY.size)
    if len(fixed) < ENTRY.size or not fixed.startswith(b"PK\x01\x02"):
        raise _corrupt("its directory is unreadable")
    (_, made_by, flags, method, crc, stored, size, name_bytes, extra_bytes, comment_bytes, attributes, offset) = (
        ENTRY.unpack(fixed)
    )
    variable = file.read(name_bytes + extra_bytes + comment_bytes)
    if len(variable) < name_bytes + extra_bytes + comment_bytes:
        raise _corrupt("its directory is unreadable")
    name = _decode(variable[:name_bytes])
    path = safe_path(name)
    if flags & ENCRYPTED:
        raise DataError("encrypted_archive", f"{quote(name)} is encrypted. Pack the folder again without a password.")
    kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == UNIX else 0
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise DataError(
            "unsafe_member",
            f"{quote(name)} is a link or a device. Pack the folder again with the files themselves (no zip -y).",
        )
    if name.endswith("/") or kind == stat.S_IFDIR:
        return None
    if method not in METHODS:
        raise DataError(
            "unsupported_compression",
            f"{quote(name)} is compressed by a method that is not supported (number {method})."
            ' Pack the folder again with "zip -r", which deflates.',
        )
    size, stored, offset = widen(variable[name_bytes : name_bytes + extra_bytes], size, stored, offset)
    if offset + ZIP_LOCAL_HEADER_BYTES + name_bytes + stored > directory.offset:
        raise _corrupt(f"{quote(name)} reaches beyond the data")
    return Member(path, offset, stored, size, METHODS[method], crc)


def _decode(name: bytes) -> str:
    """UTF-8 where it is valid, whatever the flag says (many tools never set it), else the format's old code page."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def widen(extra: bytes, *values: int) -> list[int]:
    """Replace those of size, stored and offset that stand in the zip64 extra field. Raises DataError `corrupt_archive`."""
    missing = sum(value == IN_ZIP64 for value in values)
    at = 0
    while missing and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1 and length >= 8 * missing and len(extra) >= at + length:
            wide = iter(struct.unpack_from(f"<{missing}Q", extra, at))
            return [next(wide) if value == IN_ZIP64 else value for value in values]
        at += length
    if missing:
        raise _corrupt("a large member lacks its size")
    return list(values)
