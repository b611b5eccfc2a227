"""Latent vectors in files: good ones, and such as are damaged or made to harm."""

import base64
import io
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tests.app.routes.asking import LIMIT

Z_DIM = 16
BYTES = bytes(4 * Z_DIM)


def as_npz(**arrays: Any) -> str:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return base64.b64encode(file.getvalue()).decode()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def bare(text: bytes, version: bytes = b"\x01\x00") -> bytes:
    """A .npy whose header is this text."""
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text


def archived(data: bytes, name: str = "z.npy", compression: int = zipfile.ZIP_DEFLATED) -> str:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, data)
    return base64.b64encode(file.getvalue()).decode()


def claiming(size: int, data: bytes) -> str:
    """An archive whose member says that it unpacks to `size` bytes, and unpacks to others."""
    found = bytearray(base64.b64decode(archived(data)))
    for place in (found.index(b"PK\x03\x04") + 22, found.index(b"PK\x01\x02") + 24):
        found[place : place + 4] = size.to_bytes(4, "little")
    return base64.b64encode(found).decode()


def beyond() -> str:
    """An archive whose member lies at 2**64 - 1, as the extra field of zip64 has it."""
    found = bytearray(base64.b64decode(archived(header((1, Z_DIM)) + BYTES)))
    at, end = found.index(b"PK\x01\x02"), found.index(b"PK\x05\x06")
    found[at + 42 : at + 46] = b"\xff" * 4
    found[at + 30 : at + 32] = (12).to_bytes(2, "little")
    found[end + 12 : end + 16] = (end - at + 12).to_bytes(4, "little")
    found[end:end] = b"\x01\x00\x08\x00" + b"\xff" * 8
    return base64.b64encode(found).decode()


def pickled() -> str:
    return as_npz(z=np.array([{"a": 1}] * 3, dtype=object))


FINE = as_npz(z=np.zeros((2, Z_DIM), np.float32))
BAD_Z: dict[str, Any] = {
    "no rows": [],
    "rows without numbers": [[]],
    "rows of another width": [[0.0] * (Z_DIM - 1)],
    "ragged rows": [[0.0] * Z_DIM, [0.0] * 3],
    "not numbers": [["a"] * Z_DIM],
    "nan": [[float("nan")] * Z_DIM],
    "infinite": [[float("inf")] + [0.0] * (Z_DIM - 1)],
    "too large for float32": [[1e300] * Z_DIM],
    "too large for any network": [[101.0] * Z_DIM],
    "an integer beyond any float": [[10**400] * Z_DIM],
    "too many": np.zeros((LIMIT + 1, Z_DIM)).tolist(),
    "too deep": [[[0.0] * Z_DIM]],
    "a number": 5,
    "true": True,
    "empty text": "",
    "not base64": "not base64!",
    "not ascii": "é" * 8,
    "not an npz": base64.b64encode(b"x" * 100).decode(),
    "truncated": FINE[: len(FINE) // 2],
    "truncated within a group": FINE[:-3],
    "npz of nothing": as_npz(),
    "npz of another name": as_npz(latents=np.zeros((1, Z_DIM), np.float32)),
    "npz of float64": as_npz(z=np.zeros((1, Z_DIM))),
    "npz of big endian": as_npz(z=np.zeros((1, Z_DIM), ">f4")),
    "npz of integers": as_npz(z=np.zeros((1, Z_DIM), np.int64)),
    "npz of objects": pickled(),
    "npz of records": as_npz(z=np.zeros((1, Z_DIM), [("a", "<f4")])),
    "npz of nan": as_npz(z=np.full((1, Z_DIM), np.nan, np.float32)),
    "npz of infinite": as_npz(z=np.full((1, Z_DIM), -np.inf, np.float32)),
    "npz of no rows": as_npz(z=np.zeros((0, Z_DIM), np.float32)),
    "npz of one axis": as_npz(z=np.zeros(Z_DIM, np.float32)),
    "npz of no axis": as_npz(z=np.float32(1)),
    "npz of another width": as_npz(z=np.zeros((1, Z_DIM + 1), np.float32)),
    "npz of too many": as_npz(z=np.zeros((LIMIT + 1, Z_DIM), np.float32)),
    "a bomb": archived(bytes(2**26)),
    "a bomb that says it is small": claiming(1000, bytes(2**28)),
    "one byte more than it says": claiming(len(header((1, Z_DIM)) + BYTES) - 1, header((1, Z_DIM)) + BYTES),
    "a place that no file has": beyond(),
    "a header that claims more than there is": archived(header((10**12, Z_DIM)) + BYTES),
    "a header that claims more than a machine word": archived(header((10**30, Z_DIM)) + BYTES),
    "a header that claims nothing of something": archived(header((0, 0)) + BYTES),
    "a header of negative shape": archived(header((-1, -1)) + BYTES),
    "a header of truth": archived(bare(b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 16), }") + BYTES),
    "a header of an unknown type": archived(header((1, Z_DIM), "f4,,") + BYTES),
    "a header that is no dictionary": archived(bare(b"[]") + BYTES),
    "a header with lists for keys": archived(bare(b"{[]: 1}") + BYTES),
    "a header that does not end": archived(bare(b"{'descr': (") + BYTES),
    "a header of many brackets": archived(bare(b"(" * 9000) + BYTES),
    "a header of many signs": archived(bare(b"-" * 3000 + b"1") + BYTES),
    "a header with a zero byte": archived(bare(b"{\0}") + BYTES),
    "a header beyond its file": archived(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{}"),
    "a header of no utf-8": archived(bare(b"\xff\xfe", b"\x03\x00") + BYTES),
    "a header of version 9": archived(b"\x93NUMPY\x09\x00" + BYTES),
    "an npy without magic": archived(BYTES),
    "an empty npy": archived(b""),
    "half a number": archived(header((1, Z_DIM)) + BYTES[:-1]),
    "compressed by bzip2": archived(header((1, Z_DIM)) + BYTES, compression=zipfile.ZIP_BZIP2),
    "compressed by lzma": archived(header((1, Z_DIM)) + BYTES, compression=zipfile.ZIP_LZMA),
}
