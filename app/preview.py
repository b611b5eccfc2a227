"""Look at real examples of a prepared data set, reading only those that are shown, and large ones in parts."""

import math
from io import BytesIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from app.errors import InvalidState
from app.sampling.labels import index_of
from app.storage import Storage
from app.tables import Dataset

HEADER_BYTES = 256  # numpy pads a header of four sizes to 128
READ_BYTES = 2**24  # at full size in memory at once, or one example if that is more
PICTURE_PIXELS = 2**22  # of all examples together: 2048 x 2048


def preview_examples(storage: Storage, dataset: Dataset, n: int, class_name: str | None = None) -> NDArray[np.uint8]:
    """Up to `n` examples, uint8 [n, height, width, channels], evenly spread over the data set or over one class.

    The same call gives the same examples. They are shrunk by the least whole factor at which all together have no more than about
    PICTURE_PIXELS. Raises InvalidState (not ready), Invalid (no such class), NotFound (lost files), Unavailable.
    """
    if dataset.key is None or dataset.examples is None:
        raise InvalidState(f"Data set {dataset.name!r} is not ready: there is nothing to see yet.", "preparing")
    candidates = np.arange(dataset.examples)
    if class_name is not None:
        labels = npy.read_array(BytesIO(storage.get_bytes(f"{dataset.key}/labels.npy")), allow_pickle=False)
        classes = [entry["name"] for entry in dataset.classes or []]
        candidates = np.flatnonzero(labels == index_of(classes, class_name))
    n = min(n, len(candidates))
    return _read_examples(
        storage, f"{dataset.key}/examples.npy", candidates[np.arange(n) * len(candidates) // max(n, 1)]
    )


def _read_examples(storage: Storage, key: str, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The rows of a stored uint8 [N, H, W, C] array at `indices`, shrunk to fit into one picture."""
    header = BytesIO(b"".join(storage.stream(key, 0, HEADER_BYTES)))
    npy.read_magic(header)
    (_, *shape), _, dtype = npy.read_array_header_1_0(header)
    assert dtype == np.uint8
    height, width, channels = shape
    factor = max(1, math.ceil(math.sqrt(len(indices) * height * width / PICTURE_PIXELS)))
    shown = np.empty((len(indices), -(-height // factor), -(-width // factor), channels), np.uint8)
    length = height * width * channels
    starts = [header.tell() + int(index) * length for index in indices]
    at_once = max(1, READ_BYTES // length)
    for first in range(0, len(starts), at_once):
        ranges = [(start, start + length) for start in starts[first : first + at_once]]
        for place, row in enumerate(storage.get_ranges(key, ranges), first):
            shown[place] = _shrunk(np.frombuffer(row, np.uint8).reshape(height, width, channels), factor)
    return shown


def _shrunk(example: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Each pixel the mean of factor x factor of them; fewer at the right and lower edge."""
    image = Image.fromarray(example[:, :, 0] if example.shape[2] == 1 else example)
    reduced: NDArray[np.uint8] = np.atleast_3d(np.asarray(image.reduce(factor)))
    return reduced
