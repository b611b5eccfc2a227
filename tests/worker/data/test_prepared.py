"""The stateless loader: which example comes when is a function of the seed."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.worker.runs import prepare
from worker.data.prepared import Data, DataFileError, open_data


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return open_data(prepare(tmp_path, n=10))


def rows(data: Data, first: int, n: int, seed: int = 1) -> list[bytes]:
    return [example.tobytes() for example in data.examples[data.order(seed, first, n)]]


def test_data_is_what_was_prepared(data: Data) -> None:
    """Shape, classes and digest come from the folder, and the examples are mapped rather than read."""
    assert (data.spec.examples, data.spec.height, data.spec.classes) == (10, 8, ("class 0", "class 1", "class 2"))
    assert isinstance(data.examples, np.memmap)
    assert (data.examples.dtype, data.labels.dtype) == (np.uint8, np.int64)


def test_every_epoch_visits_every_example_once(data: Data) -> None:
    """Also where batches reach from one epoch into the next."""
    seen = [row for first in range(0, 30, 6) for row in rows(data, first, 6)]
    for epoch in range(3):
        assert Counter(seen[10 * epoch : 10 * epoch + 10]) == Counter(e.tobytes() for e in data.examples)
    assert seen[:10] != seen[10:20]


def test_order_does_not_depend_on_the_batch(data: Data) -> None:
    """The same examples come in batches of 3, 5 and 15, from any starting point."""
    everything = rows(data, 0, 30)
    for size in (3, 5, 15):
        assert [row for first in range(0, 30, size) for row in rows(data, first, size)] == everything
    assert rows(data, 17, 5) == everything[17:22]


def test_seeds_shuffle_differently(data: Data) -> None:
    """Another seed is another order."""
    assert rows(data, 0, 10, seed=1) != rows(data, 0, 10, seed=2)


def test_labels_may_be_left_out(tmp_path: Path) -> None:
    """An example without a label has label -1 beside the others, and the shape of the data says how many there are."""
    prepare(tmp_path, n=10)
    assert open_data(tmp_path).spec.unlabelled == 0  # as data prepared by earlier releases, which say nothing of it
    labels = np.load(tmp_path / "labels.npy")
    labels[3:5] = -1
    np.save(tmp_path / "labels.npy", labels)
    about = json.loads((tmp_path / "dataset.json").read_bytes())
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "unlabelled": 2}), encoding="utf-8")
    data = open_data(tmp_path)
    assert data.spec.unlabelled == 2
    assert data.labels.tolist() == labels.tolist()


def remove_examples(folder: Path) -> None:
    (folder / "examples.npy").unlink()


def truncate_examples(folder: Path) -> None:
    (folder / "examples.npy").write_bytes((folder / "examples.npy").read_bytes()[:300])


def empty_labels(folder: Path) -> None:
    (folder / "labels.npy").write_bytes(b"")


def other_dtype(folder: Path) -> None:
    np.save(folder / "examples.npy", np.zeros((10, 8, 8, 1)))


def other_shape(folder: Path) -> None:
    np.save(folder / "examples.npy", np.zeros((9, 8, 8, 1), np.uint8))


def unknown_class(folder: Path) -> None:
    np.save(folder / "labels.npy", np.full(10, 3))


def label_below_none(folder: Path) -> None:
    np.save(folder / "labels.npy", np.full(10, -2))


def not_json(folder: Path) -> None:
    (folder / "dataset.json").write_text("{", encoding="utf-8")


def missing_key(folder: Path) -> None:
    (folder / "dataset.json").write_text(json.dumps({"examples": 10}), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        remove_examples,
        truncate_examples,
        empty_labels,
        other_dtype,
        other_shape,
        unknown_class,
        label_below_none,
        not_json,
        missing_key,
    ],
)
def test_damaged_data_is_refused(tmp_path: Path, damage: object) -> None:
    """What is missing, cut short or not as described is a DataFileError, before any training."""
    prepare(tmp_path, n=10)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataFileError):
        open_data(tmp_path)
