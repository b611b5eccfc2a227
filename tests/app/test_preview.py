"""Looking at real examples."""

import numpy as np
import pytest

from app import preview
from app.db import Database
from app.errors import Invalid, InvalidState
from app.preview import preview_examples
from app.storage import Storage
from app.tables import Dataset
from tests.factories import make_dataset


def store_examples(database: Database, storage: Storage, labels: list[int]) -> Dataset:
    """A ready data set whose example number i is all i."""
    n = len(labels)
    classes = [{"name": name, "count": labels.count(number)} for number, name in enumerate(("cat", "dog"))]
    with database.writing() as session:
        dataset = make_dataset(session, examples=n, height=2, width=3, classes=classes)
    examples = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 3, 1))
    for name, array in (("examples", examples), ("labels", np.array(labels, np.int64))):
        path = storage.local_path(f"{dataset.key}/{name}.npy")
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ascontiguousarray(array))
    return dataset


@pytest.mark.parametrize(
    ("n", "class_name", "expected"),
    [
        (1, None, [0]),
        (4, None, [0, 2, 5, 7]),
        (10, None, list(range(10))),
        (64, None, list(range(10))),
        (2, "dog", [1, 7]),
        (3, "dog", [1, 5, 7]),
        (64, "dog", [1, 5, 7, 9]),
        (2, "cat", [0, 4]),
        (2, "0", [0, 4]),  # by its index, as when samples are asked for
    ],
)
def test_preview(database: Database, storage: Storage, n: int, class_name: str | None, expected: list[int]) -> None:
    """A preview spreads over the data set or one class, shows no example twice and is the same each time."""
    dataset = store_examples(database, storage, [0, 1, 0, 0, 0, 1, 0, 1, 0, 1])
    shown = preview_examples(storage, dataset, n, class_name)
    assert shown.shape == (len(expected), 2, 3, 1)
    assert shown.dtype == np.uint8
    assert [int(example.max()) for example in shown] == expected
    assert [int(example.min()) for example in shown] == expected


def test_preview_of_what_is_not_there(database: Database, storage: Storage) -> None:
    """An unknown class is Invalid and names the classes; a data set that is not ready has no preview; an empty class has no rows."""
    with database.writing() as session, pytest.raises(InvalidState):
        preview_examples(storage, make_dataset(session, key=None, examples=None), 4)
    dataset = store_examples(database, storage, [0, 0])
    with pytest.raises(Invalid, match="there are cat, dog") as caught:
        preview_examples(storage, dataset, 4, "cow")
    assert caught.value.errors[0].pointer == "#/class"
    assert preview_examples(storage, dataset, 4, "dog").shape == (0, 2, 3, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_large_examples_are_shrunk(
    database: Database, storage: Storage, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """All that were asked for fit into one picture, each pixel a mean of neighbours, and few lie in memory at full size."""
    monkeypatch.setattr(preview, "PICTURE_PIXELS", 100)
    monkeypatch.setattr(preview, "READ_BYTES", 1000)
    dataset = store_examples(database, storage, [0] * 10)
    path = storage.local_path(f"{dataset.key}/examples.npy")
    assert path is not None
    examples = np.random.default_rng(1).integers(0, 256, (10, 12, 11, channels), np.uint8)
    examples[..., 3:] = 255  # where it is transparent, a pixel's colour counts for less
    np.save(path, examples)
    shown = preview_examples(storage, dataset, 10)
    assert shown.shape == (10, 3, 3, channels)
    means = examples[:, :4, :4].mean(axis=(1, 2))
    assert np.abs(shown[:, 0, 0] - means).max() <= 1
