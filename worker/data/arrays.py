"""Images that come as arrays: an npz, and the digits that scikit-learn carries.

An npz holds the images as `images`, `x`, `x_train` or `arr_0`: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 to 4 channels
(gray, gray and alpha, RGB, RGBA); and perhaps one label each as `labels`, `y`, `y_train` or `arr_1`: whole numbers or texts, [N]
or [N, 1]. Arrays are copied to a spool file and read from there in pieces. Nothing is ever unpickled.
"""

import io
import math
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.data.images import Frame
from worker.data.members import CorruptMember, DataError, Member, Method, quote, stream_member

IMAGES = ("images", "x", "x_train", "arr_0")
LABELS = ("labels", "y", "y_train", "arr_1")
CHANNELS = (1, 2, 3, 4)
LARGEST_HEADER_CHARACTERS = 10_000
LARGEST_HEADER_BYTES = 1 << 16  # numpy reads as many as a header claims, and looks at the characters afterwards
# What reading a crafted header raises: numpy's checks, and Python's parser and tokenizer on literals that are none.
HEADER_ERRORS = (
    *(ValueError, TypeError, LookupError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
LARGEST_LABELS_BYTES = 64 * 2**20
RESAVE = "Save it with numpy.savez_compressed(path, images=images, labels=labels)."


class Arrays(NamedTuple):
    """N raw images of one shape, one after the other from byte `offset` of a file; `labels` are N whole numbers or texts, or none."""

    path: Path
    offset: int
    images: int
    frame: Frame
    labels: NDArray[np.generic] | None

    def members(self) -> Iterator[tuple[Member, str | None]]:
        """Each image as a member, with its label."""
        size = self.frame.height * self.frame.width * self.frame.channels
        for number in range(self.images):
            member = Member(f"images[{number}]", self.offset + number * size, size, size, Method.RAW, 0)
            yield member, None if self.labels is None else str(self.labels[number])


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int


def load_digits(spool: Path) -> Arrays:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, classes "0" to "9" (UCI, Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits as load  # takes a second, and only this needs it

    images, labels = load(return_X_y=True)  # float64 [1797, 64] in 0..16, int64 [1797]
    pixels = np.round(images * (255 / 16)).astype(np.uint8)
    spool.write_bytes(pixels.tobytes())
    return Arrays(spool, 0, len(pixels), Frame(8, 8, 1, planar=False), labels)


def load_npz(archive: Path, members: Iterable[Member], spool: Path, tick: Callable[[], None]) -> Arrays:
    """Copy the images of an npz to `spool`, and read its labels. `tick` is called between pieces.

    Raises DataError `bad_npz`.
    """
    named = ((member.path.removesuffix(".npy").lower(), member) for member in members)
    by_name = {name: member for name, member in named if name in {*IMAGES, *LABELS}}
    images = next((by_name[name] for name in IMAGES if name in by_name), None)
    labels = next((by_name[name] for name in LABELS if name in by_name), None)
    if images is None:
        raise _bad(f"has no array named {', '.join(IMAGES)}")
    names = None
    if labels is not None:
        _copy(archive, labels, spool, tick)
        names = _read_labels(spool)
    _copy(archive, images, spool, tick)
    header = _read_header(spool, images.path)
    frame = _frame(header)
    count = header.shape[0]
    if spool.stat().st_size - header.offset != math.prod(header.shape):
        raise _bad("has images that are cut short")
    if names is not None and len(names) != count:
        raise _bad(f"has {count} images but {len(names)} labels")
    return Arrays(spool, header.offset, count, frame, names)


def _bad(what: str) -> DataError:
    return DataError("bad_npz", f"the npz file {what}. {RESAVE}")


def _copy(archive: Path, member: Member, spool: Path, tick: Callable[[], None]) -> None:
    try:
        with archive.open("rb") as packed, spool.open("wb") as unpacked:
            for piece in stream_member(packed.fileno(), member):
                unpacked.write(piece)
                tick()
    except CorruptMember as error:
        raise _bad(f"has a damaged array {quote(member.path)}: {error}") from error


def _read_header(spool: Path, name: str) -> _Header:
    """Format: numpy.lib.format. The header is a literal, read without evaluating it."""
    with spool.open("rb") as whole, io.BytesIO(whole.read(LARGEST_HEADER_BYTES)) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file, max_header_size=LARGEST_HEADER_CHARACTERS)
        except HEADER_ERRORS as error:
            raise _bad(f"has an array {quote(name)} without a readable header") from error
        if dtype.hasobject:
            raise _bad(f"has an array of Python objects, {quote(name)}, which is not read because it could run code")
        if dtype.itemsize == 0 or min(shape, default=0) < 0:
            raise _bad(f"has an array {quote(name)} whose items or dimensions have no size")
        if fortran_order and len(shape) > 1:
            raise _bad(f"has {quote(name)} in Fortran order; use numpy.ascontiguousarray")
        return _Header(shape, dtype, file.tell())


def _frame(header: _Header) -> Frame:
    shape = header.shape
    if header.dtype != np.uint8:
        raise _bad(f"has images of type {header.dtype}; make them uint8 in 0..255")
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or 0 in shape or (shape[3] not in CHANNELS and shape[1] not in CHANNELS):
        raise _bad(f"has images of shape {list(header.shape)}; [N, H, W], [N, H, W, C] and [N, C, H, W] are understood")
    if shape[3] in CHANNELS:
        return Frame(shape[1], shape[2], shape[3], planar=False)
    return Frame(shape[2], shape[3], shape[1], planar=True)


def _read_labels(spool: Path) -> NDArray[np.generic]:
    header = _read_header(spool, "labels")
    if not header.shape or header.dtype.kind not in "iuU" or header.shape[1:] not in {(), (1,)}:
        raise _bad("has labels that are not whole numbers or texts, one for each image")
    if math.prod(header.shape) * header.dtype.itemsize > LARGEST_LABELS_BYTES:
        raise _bad(f"has labels of more than {LARGEST_LABELS_BYTES} bytes; use whole numbers")
    labels: NDArray[np.generic] = np.fromfile(spool, header.dtype, offset=header.offset).ravel()
    if len(labels) != header.shape[0]:
        raise _bad("has labels that are cut short")
    try:
        if not all(str(label).encode() for label in np.unique(labels)):
            raise _bad("has an empty label")
    except ValueError as error:  # four bytes a character can be more than Unicode has
        raise _bad("has a label that is not a text") from error
    return labels
