"""examples.npy as a file of rows, written by several processes at once, and afterwards narrowed to what is worth keeping."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.data.chunks import write_at
from worker.data.images import Channels, Target

BLOCK_BYTES = 4 * 2**20
Tick = Callable[[], None]


def header(rows: int, target: Target) -> bytes:
    """The npy header of uint8 [rows, H, W, C]. Numpy pads it so that its length is the same for any number of rows."""
    buffer = io.BytesIO()
    shape = (rows, target.height, target.width, target.channels)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def row_bytes(target: Target) -> int:
    return target.height * target.width * target.channels


def allocate(path: Path, rows: int, target: Target) -> None:
    """Create the file in its full size, so that a full disk shows before the work and not after it (OSError ENOSPC, EFBIG)."""
    start = header(rows, target)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(start) + rows * row_bytes(target))
        file.write(start)


def narrow(path: Path, target: Target, keep: NDArray[np.bool_], channels: Channels, tick: Tick) -> Target:
    """Drop the rows that are not in `keep` and change to `channels`, in place; `target` is the shape before, the result after."""
    narrowed = target._replace(channels=channels)
    if keep.all() and channels == target.channels:
        return target
    rows = int(keep.sum())
    read_at = len(header(len(keep), target))
    start = header(rows, narrowed)
    shape = (-1, target.height, target.width, target.channels)
    with path.open("r+b") as file:
        write_to = len(start)
        for block_keep in _blocks(keep, target):
            block = np.frombuffer(os.pread(file.fileno(), len(block_keep) * row_bytes(target), read_at), np.uint8)
            read_at += block.nbytes
            kept = np.ascontiguousarray(_to_channels(block.reshape(shape)[block_keep], channels))
            write_at(file.fileno(), kept, write_to)
            write_to += kept.nbytes
            tick()
        file.write(start)
        file.truncate(write_to)
    return narrowed


def hash_examples(path: Path, target: Target, labels: NDArray[np.int64], classes: Sequence[str], tick: Tick) -> str:
    """SHA-256 over the shape, the names of the classes, the examples and the labels (little-endian)."""
    shape = [len(labels), target.height, target.width, target.channels]
    digest = hashlib.sha256(json.dumps({"shape": shape, "classes": list(classes)}, sort_keys=True).encode())
    with path.open("rb") as file:
        file.seek(len(header(len(labels), target)))
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            tick()
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _blocks(keep: NDArray[np.bool_], target: Target) -> list[NDArray[np.bool_]]:
    size = max(1, BLOCK_BYTES // row_bytes(target))
    return [keep[first : first + size] for first in range(0, len(keep), size)]


def _to_channels(rows: NDArray[np.uint8], channels: Channels) -> NDArray[np.uint8]:
    """RGBA, RGB or gray to fewer channels. Alpha is laid over white; what becomes one channel is gray already."""
    if rows.shape[3] == channels:
        return rows
    if rows.shape[3] == 4:
        alpha = rows[..., 3:].astype(np.uint16)
        rows = ((rows[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return rows[..., :channels]
