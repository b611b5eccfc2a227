"""Whether the data look the same mirrored, and runs that mirror because of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.worker.runs import assert_same_end, config, newest, prepare, run_here
from worker.data.prepared import open_data
from worker.trainer.mirror import LEAST, is_mirrored, looks_the_same

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * (255 / 16)).astype(np.uint8)[..., None]
ASKED = {"kind": "ada", "flip": None}


def mirrored(images: np.ndarray) -> np.ndarray:
    """From left to right."""
    return images[:, :, ::-1]


def of_one(images: np.ndarray) -> np.ndarray:
    """No classes."""
    return np.zeros(len(images), np.int64)


@pytest.mark.parametrize("n", [LEAST, 200, 1_797])
def test_digits_are_not_mirrored(n: int) -> None:
    """They are not the same from behind."""
    assert not looks_the_same(IMAGES[:n], of_one(IMAGES[:n]))


@pytest.mark.parametrize("n", [200, 1_797])
def test_what_stands_either_way_is_mirrored(n: int) -> None:
    """Half of the digits, whichever they are, are seen from behind."""
    behind = np.random.default_rng(0).random(n) < 0.5
    images = np.where(behind[:, None, None, None], mirrored(IMAGES[:n]), IMAGES[:n])
    assert looks_the_same(images, of_one(images))


def test_the_mirror_image_of_one_class_may_be_another() -> None:
    """All together they look the same, but not each class."""
    fives = IMAGES[DIGITS.target == 5]
    images = np.concatenate([fives, mirrored(fives)])
    classes = np.repeat([0, 1], len(fives))
    assert looks_the_same(images, of_one(images))
    assert not looks_the_same(images, classes)


def test_of_too_few_nothing_is_known() -> None:
    """Not even of images that equal their mirror images, which else look the same."""
    images = np.full((LEAST, 8, 8, 3), 7, np.uint8)
    assert looks_the_same(images, of_one(images))
    assert not looks_the_same(images[1:], of_one(images[1:]))
    assert not looks_the_same(images, np.arange(LEAST))
    assert not looks_the_same(images, np.full(LEAST, -1))


def test_each_of_many_classes_is_asked() -> None:
    """However many images there are of the others; images without a class have no say."""
    images = np.random.default_rng(0).integers(0, 256, (3_000, 8, 8, 1)).astype(np.uint8)
    classes = np.minimum(np.arange(3_000) // LEAST, 20)
    assert looks_the_same(images, classes)
    assert looks_the_same(images, np.where(np.arange(3_000) == 2_999, -1, classes))
    last = classes == 19
    images[last] = IMAGES[DIGITS.target == 5][: last.sum()]
    assert not looks_the_same(images, classes)


def test_whoever_knows_is_asked_first(tmp_path: Path) -> None:
    """The config, then the run so far, then the data; who wants no augmentation gets none."""
    data = open_data(prepare(tmp_path))
    said = [is_mirrored(config(augment={"flip": flip}), data, before=not flip) for flip in (True, False)]
    assert said == [True, False]
    asked = config(augment=ASKED)
    assert [is_mirrored(asked, data, before) for before in (True, False)] == [True, False]
    assert not is_mirrored(config(augment={"kind": "none", "flip": None}), data, before=None)


def test_a_stopped_run_goes_on_as_it_began(tmp_path: Path) -> None:
    """To the same bits; its first event and its checkpoints say that it mirrors."""
    folder = prepare(tmp_path / "data", n=120)
    images = np.load(folder / "examples.npy")
    np.save(folder / "examples.npy", np.maximum(images, mirrored(images)))
    options = {"augment": ASKED, "network": {"conditional": False}}
    undisturbed = run_here(tmp_path / "undisturbed", folder, **options)
    started = json.loads((undisturbed / "events.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert started["data"]["mirrored"] is True
    stopped = run_here(tmp_path / "stopped", folder, stop_after=11, **options)
    assert torch.load(newest(stopped) / "state.pt", weights_only=True)["mirrored"] is True
    assert_same_end(run_here(stopped, folder, **options), undisturbed)
