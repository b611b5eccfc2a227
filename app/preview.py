"""Look at real examples of a prepared data set, reading only the bytes that are shown."""

from io import BytesIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import FieldError, InvalidState, NotFound
from app.storage import Storage
from app.tables import Dataset

HEADER_BYTES = 256  # numpy pads a header of four sizes to 128


def preview_examples(storage: Storage, dataset: Dataset, n: int, class_name: str | None = None) -> NDArray[np.uint8]:
    """Up to `n` examples, uint8 [n, height, width, channels], evenly spread over the data set or over one class.

    The same call gives the same examples. Raises InvalidState (not ready), NotFound (no such class, lost files), Unavailable.
    """
    if dataset.key is None or dataset.examples is None:
        raise InvalidState(f"Data set {dataset.name!r} is not ready: there is nothing to see yet.", "preparing")
    candidates = np.arange(dataset.examples)
    if class_name is not None:
        labels = npy.read_array(BytesIO(storage.get_bytes(f"{dataset.key}/labels.npy")), allow_pickle=False)
        candidates = np.flatnonzero(labels == _label(dataset, class_name))
    n = min(n, len(candidates))
    return _read_examples(
        storage, f"{dataset.key}/examples.npy", candidates[np.arange(n) * len(candidates) // max(n, 1)]
    )


def _label(dataset: Dataset, class_name: str) -> int:
    classes = [entry["name"] for entry in dataset.classes or []]
    if class_name in classes:
        return classes.index(class_name)
    known = f"it has {', '.join(classes)}" if classes else "it has no classes"
    detail = f"Data set {dataset.name!r} has no class {class_name!r}: {known}."
    raise NotFound(detail, errors=[FieldError("#/class", "no such class")])


def _read_examples(storage: Storage, key: str, indices: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The rows of a stored uint8 [N, H, W, C] array at `indices`."""
    header = BytesIO(b"".join(storage.stream(key, 0, HEADER_BYTES)))
    npy.read_magic(header)
    (_, *shape), _, dtype = npy.read_array_header_1_0(header)
    assert dtype == np.uint8
    length = int(np.prod(shape))
    starts = header.tell() + indices * length
    rows = storage.get_ranges(key, [(int(start), int(start) + length) for start in starts])
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(indices), *shape)
