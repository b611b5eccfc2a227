r"""What tarfile may read of an untrusted tar: its headers, and of these no more than an honest archive has.

tarfile takes pax records as they come: records that overlap make a gigabyte of keywords out of 64 KiB, a long run of digits is
searched in quadratic time, and what a global header says is copied for every member after it.
Format: POSIX.1-2017, pax, "pax Header Block": records of "LENGTH KEYWORD=VALUE\n", where LENGTH counts the whole record.
"""

import re
import tarfile
from collections.abc import Mapping
from typing import BinaryIO

from worker.data.members import DataError

MOST_HEADER_BYTES = 1 << 16  # of one member: its long name, its pax headers and the global ones before it
MOST_GLOBAL_KEYS, MOST_GLOBAL_CHARACTERS = 32, 4096  # git writes one key of 40
LONGEST_DIGITS = 1024  # as long as a path may be
DAMAGED = "the tar archive is damaged or cut short: {}. Pack and upload it again."
TYPE_AT = 156
PAX_TYPES = b"xgX"
RECORD_LENGTH = re.compile(rb"([0-9]{1,5}) ")


class Headers:
    """A file in which tarfile reads headers; call `next_member` between them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MOST_HEADER_BYTES
        self._pax_follows = False
        self.seek, self.tell = file.seek, file.tell

    def next_member(self) -> None:
        self._left = MOST_HEADER_BYTES

    def read(self, count: int) -> bytes:
        """Raises DataError `corrupt_archive`."""
        if not 0 <= count <= self._left:
            raise _damaged(f"a member has more than {MOST_HEADER_BYTES} bytes of headers")
        self._left -= count
        block = self._file.read(count)
        if self._pax_follows:
            _check_records(block)
        self._pax_follows = (
            not self._pax_follows and count == tarfile.BLOCKSIZE == len(block) and block[TYPE_AT] in PAX_TYPES
        )
        return block


def check_global(headers: Mapping[str, str]) -> None:
    """Raises DataError `large_headers` when the global pax headers, which apply to every member, are many or long."""
    if (
        len(headers) > MOST_GLOBAL_KEYS
        or sum(len(key) + len(value) for key, value in headers.items()) > MOST_GLOBAL_CHARACTERS
    ):
        raise DataError(
            "large_headers",
            f"the tar archive has global pax headers of more than {MOST_GLOBAL_KEYS} keys or {MOST_GLOBAL_CHARACTERS} characters."
            ' Pack the folder again without them, for example by "tar --format=gnu".',
        )


def _check_records(block: bytes) -> None:
    at = 0
    while at < len(block) and block[at]:  # zeros fill the last block
        length = RECORD_LENGTH.match(block, at)
        end = at + int(length[1]) if length else at
        if length is None or block[end - 1 : end] != b"\n" or block.find(b"=", length.end(), end) < 0:
            raise _damaged("a pax header is unreadable")
        at = end
    if any(len(digits) > LONGEST_DIGITS for digits in re.findall(rb"[0-9]+", block)):
        raise _damaged(f"a pax header has a number of more than {LONGEST_DIGITS} digits")


def _damaged(what: str) -> DataError:
    return DataError("corrupt_archive", DAMAGED.format(what))
