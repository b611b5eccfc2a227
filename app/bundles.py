"""Many samples in one file, written piece by piece: a zip of encoded samples, or an npz of the arrays.

Nothing of time or place goes in, so the same samples are the same bytes. Members are stored, not deflated: pictures are
compressed already, and deflating arrays would cost more than making them.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


class Bundle:
    """A zip file that is handed out while it is written: write something, then `drain()` what came of it."""

    def __init__(self) -> None:
        self._pieces = _Pieces()
        self._zip = ZipFile(self._pieces, "w", ZIP_STORED)

    def add(self, name: str, data: bytes) -> None:
        """Write a whole member."""
        self._zip.writestr(_member(name), data)

    @contextmanager
    def array(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> Iterator[Callable[[NDArray[Any]], None]]:
        """Open an array of an npz; what is given writes its rows, which must come to `shape` in all (C order)."""
        header = io.BytesIO()
        described = {"shape": tuple(shape), "fortran_order": False, "descr": npy.dtype_to_descr(np.dtype(dtype))}
        npy.write_array_header_1_0(header, described)
        info = _member(f"{name}.npy")
        # Said beforehand, so that it becomes zip64 only if it must.
        info.file_size = len(header.getvalue()) + math.prod(shape) * np.dtype(dtype).itemsize
        with self._zip.open(info, "w") as member:
            member.write(header.getvalue())
            yield lambda rows: _write(member, np.ascontiguousarray(rows, dtype))

    def close(self) -> bytes:
        """Write the directory, and give out the last bytes."""
        self._zip.close()
        return self.drain()

    def drain(self) -> bytes:
        """The bytes written since the last time."""
        return self._pieces.take()


def _write(member: IO[bytes], array: NDArray[Any]) -> None:
    member.write(array.tobytes())


def _member(name: str) -> ZipInfo:
    info = ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix, wherever we run
    info.external_attr = 0o644 << 16
    return info


class _Pieces:
    """Somewhere for a zip to write to: it cannot seek, and forgets what was taken. (No io.RawIOBase: when a download is
    abandoned, that would be closed before the zip that still wants to write its end.)
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
