"""Bundles: read by any reader, the same bytes each time."""

import io
import zipfile

import numpy as np

from app.bundles import Bundle
from tests.pictures import picture


def write_npz() -> bytes:
    bundle = Bundle()
    pieces = []
    with bundle.array("images", (4, 9, 13, 3), np.uint8) as append:
        for part in (slice(0, 3), slice(3, 4)):
            append(np.stack([picture(3, seed=seed) for seed in range(4)])[part])
            pieces.append(bundle.drain())
    with bundle.array("seeds", (4,), np.int64) as append:
        append(np.arange(4))
    assert len(pieces[0]) > 3 * 9 * 13 * 3  # given out as it came in
    return b"".join([*pieces, bundle.close()])


def test_npz_is_written_in_parts_and_read_by_numpy() -> None:
    """Arrays written part by part load without pickle, with their types and values."""
    loaded = np.load(io.BytesIO(write_npz()), allow_pickle=False)
    assert np.array_equal(loaded["images"], np.stack([picture(3, seed=seed) for seed in range(4)]))
    assert (loaded["seeds"].dtype, loaded["seeds"].tolist()) == (np.int64, [0, 1, 2, 3])


def test_bundles_repeat_byte_for_byte() -> None:
    """Nothing of time or place goes into a bundle, and any zip reader takes it."""
    assert write_npz() == write_npz()
    bundle = Bundle()
    bundle.add("a.png", b"one")
    first = bundle.drain()
    bundle.add("b.png", b"two")
    archive = zipfile.ZipFile(io.BytesIO(first + bundle.close()))
    assert archive.testzip() is None
    assert [info.date_time for info in archive.infolist()] == [(1980, 1, 1, 0, 0, 0)] * 2
    assert archive.read("b.png") == b"two"
