"""The classifier of a data set's labels, whose features samples are compared in."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from worker.data import FEATURES_FILE
from worker.evaluation import classifier as module
from worker.evaluation.classifier import FeatureClassifier, Shape, load_classifier, save, train_classifier


def bright_corners(n: int = 300, shape: tuple[int, int, int] = (12, 8, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Dark noise, in class 1 with a bright upper half."""
    labels = np.arange(n) % 2
    examples = np.random.default_rng(0).integers(0, 80, (n, *shape)).astype(np.uint8)
    examples[labels == 1, : max(1, shape[0] // 2)] += 120
    return examples, labels.astype(np.int64)


def train(examples: np.ndarray, labels: np.ndarray, threads: int = 1) -> FeatureClassifier:
    return train_classifier(examples, labels, int(labels.max()) + 1, threads, lambda _share: None)


@pytest.mark.parametrize(
    "shape", [(12, 8, 1), (1, 1, 1), (2, 1, 3), (1, 5, 4), (33, 17, 3), (100, 150, 4), (128, 128, 1)]
)
def test_any_shape(shape: tuple[int, int, int]) -> None:
    """From one pixel upwards, of any proportion and with 1, 3 or 4 channels, it learns what is easy to see."""
    examples, labels = bright_corners(shape=shape)
    found = train(examples, labels)
    assert found.accuracy > 0.9
    features = found.features(examples[:7])
    assert (features.dtype, features.shape) == (np.float32, (7, found.dim))
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
    assert found.logits(examples[:7]).shape == (7, 2)


def test_same_data_same_bytes(tmp_path: Path) -> None:
    """Trained twice it is the same file, and torch's own generator is neither used nor changed."""
    examples, labels = bright_corners()
    contents = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        save(train(examples, labels), tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
        contents.append((tmp_path / FEATURES_FILE).read_bytes())
    assert contents[0] == contents[1]


def test_loaded_is_what_was_saved(tmp_path: Path) -> None:
    """A classifier from its file gives the same features, whatever images they are computed beside."""
    examples, labels = bright_corners(600)
    found = train(examples, labels)
    save(found, tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded is not None
    assert (loaded.accuracy, loaded.baseline, loaded.shape) == (found.accuracy, found.baseline, Shape(12, 8, 1, 2))
    assert np.array_equal(loaded.features(examples), found.features(examples))
    np.testing.assert_allclose(
        loaded.features(examples[300:303]), found.features(examples)[300:303], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(loaded.logits(examples[:3]), found.logits(examples)[:3], rtol=1e-4, atol=1e-5)


def test_images_of_another_shape_are_refused() -> None:
    """It compares only what is shaped as the data that it learned from."""
    examples, labels = bright_corners()
    with pytest.raises(ValueError, match="expected"):
        train(examples, labels).features(examples[:, :8])


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def rename_key(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"baseline", b"somethin"))


def change_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'channels\\": 1', b'channels\\": 3'))


@pytest.mark.parametrize("damage", [remove, truncate, rename_key, change_shape])
def test_file_that_cannot_be_read_is_none(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Without the file, and with one that is damaged or of another version, there is no classifier."""
    save(train(*bright_corners()), tmp_path)
    assert load_classifier(tmp_path) is not None
    damage(tmp_path / FEATURES_FILE)
    assert load_classifier(tmp_path) is None


def test_unlabelled_examples_are_not_learned_from() -> None:
    """Examples without a label count for nothing: the same is learned without them."""
    examples, labels = bright_corners()
    strange = np.full((50, 12, 8, 1), 255, np.uint8)
    found = train(np.concatenate([examples, strange]), np.concatenate([labels, np.full(50, -1)]))
    assert np.array_equal(found.logits(examples), train(examples, labels).logits(examples))


def test_accuracy_is_of_examples_that_it_did_not_see() -> None:
    """Labels that have nothing to do with the images may be learned by heart, and are not right on others."""
    examples, _ = bright_corners(400)
    labels = np.random.default_rng(1).integers(0, 2, 400)
    found = train(examples, labels)
    assert found.held_out == 40
    assert not found.tells_apart


def test_baseline_is_the_largest_class() -> None:
    """Identical images are told apart no better than by always naming the most frequent class."""
    labels = (np.arange(400) % 4 == 0).astype(np.int64)
    found = train(np.full((400, 8, 8, 1), 9, np.uint8), labels)
    assert found.accuracy <= found.baseline < 1
    assert not found.tells_apart


@pytest.mark.parametrize(
    ("bound", "value"), [("MOST_SEEN", 640), ("MOST_MACS", 5.5e8), ("MOST_BYTES", 96 * 640), ("MOST_EPOCHS", 2)]
)
def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, value: float) -> None:
    """Examples, arithmetic, bytes and epochs are each bounded, and the share of the work that is done is told step by step."""
    examples, labels = bright_corners(400)
    monkeypatch.setattr(module, bound, value)
    shares: list[float] = []
    train_classifier(examples, labels, 2, 1, shares.append)
    assert 5 <= len(shares) <= 11
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 1


def test_stops_when_told() -> None:
    """What the callback raises ends the training at once, and puts back what torch keeps for the process."""
    threads = torch.get_num_threads()

    def stop(_share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_classifier(*bright_corners(), 2, threads + 1, stop)
    assert torch.get_num_threads() == threads


def test_file_says_what_it_is(tmp_path: Path) -> None:
    """The file carries one key of metadata, so that its bytes do not depend on an order."""
    save(train(*bright_corners()), tmp_path)
    content = (tmp_path / FEATURES_FILE).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["classifier"]


def test_threads_share_the_work() -> None:
    """Several threads learn what one does, each time the same."""
    examples, labels = bright_corners()
    found, again = (train(examples, labels, threads=3) for _ in range(2))
    assert found.accuracy > 0.9
    assert np.array_equal(found.logits(examples), again.logits(examples))
