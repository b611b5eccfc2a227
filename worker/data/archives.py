"""What kind of archive a file is, by its first bytes and never by its name, and what lies in it.

By kind:
    zip                       read in place
    npz                       a zip of nothing but .npy files; see worker.data.arrays
    tar                       read in place
    tar.gz, tar.bz2, tar.xz   unpacked as one stream into a spool file, then as a tar
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from worker.data.members import DataError, Limits, Member
from worker.data.tars import tar_members, unpack_stream
from worker.data.zips import zip_members

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
TAR_MAGIC_AT = 257
ACCEPTED = "Upload a zip, a tar (plain or compressed by gzip, bzip2 or xz), or an npz."


class Archive(NamedTuple):
    """Where the members' bytes lie, and the members, each with a safe path."""

    path: Path
    members: Iterator[Member]


def open_archive(path: Path, spool: Path, limits: Limits, tick: Callable[[], None]) -> Archive:
    """Look at an upload. `spool` is written only for a compressed tar; `tick` is called now and then meanwhile.

    Members come in the archive's order, without folders, checked as they come.
    Raises DataError: `not_an_archive` and all that `worker.data.zips.zip_members`, `worker.data.tars.tar_members` and
    `worker.data.tars.unpack_stream` name.
    """
    start = _first_bytes(path)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Archive(path, zip_members(path, limits, tick))
    if start.startswith(COMPRESSED):
        unpack_stream(path, spool, limits, tick)
        path, start = spool, _first_bytes(spool)
    if start[TAR_MAGIC_AT:].startswith(b"ustar"):
        return Archive(path, tar_members(path, limits, tick))
    raise DataError("not_an_archive", f"the file is not an archive of a kind that is understood. {ACCEPTED}")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)
