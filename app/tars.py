"""Tar files whose members lie end to end: the same members are the same bytes, and files join once their ends are left out."""

import tarfile

BLOCK = 512
END = bytes(2 * BLOCK)  # what ends a tar file


def member(name: str, data: bytes) -> bytes:
    """A whole member."""
    return header(name, len(data)) + data + padding(len(data))


def header(name: str, size: int) -> bytes:
    """What stands before a member of `size` bytes: nobody's, of no time. Its name has at most 100 bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    # More than 8 GiB, which no digits are left for, is written in base 256: what all readers of today understand.
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What stands behind it."""
    return bytes(-size % BLOCK)
