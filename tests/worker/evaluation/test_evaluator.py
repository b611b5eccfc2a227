"""Whole reports: of samples that are good, shifted, collapsed or copied, and of data that leaves little to measure."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.source import HOUSE
from tests.worker.evaluation.data import Images, Labels, config, drawing, images_of, prepared, with_classifier
from worker.data.prepared import open_data
from worker.evaluation.evaluator import Evaluator

NUMBERS = {
    *("kid", "kid_low", "kid_high", "kid_floor", "kid_floor_high", "fid", "fid_floor"),
    *("precision", "recall", "density", "coverage", "duplicates", "spread", "class_coverage", "class_accuracy"),
    *("memorisation", "memorisation_low", "memorisation_high", "memorisation_ratio"),
}
KEYS = NUMBERS | {"samples", "reference", "features", "nearest", "notes", "seconds"}


def evaluate(folder: Path, real: Images, fake: Images, asked: Labels | None = None, **settings: Any) -> dict[str, Any]:
    """A report in random features unless the settings say otherwise, which is JSON without NaN and has every key."""
    settings = {"samples": len(fake), "features": "random"} | settings
    evaluator = Evaluator(prepared(folder, real), config(**settings), torch.device("cpu"))
    report = evaluator.evaluate(drawing(fake, asked))
    json.dumps(report, allow_nan=False)
    assert set(report) == KEYS
    assert {type(report[name]) for name in NUMBERS} <= {float, type(None)}
    return report


@pytest.fixture(scope="module")
def real() -> Images:
    return images_of(1_200, 10, 8, 1, seed=0)


def test_samples_of_the_same_kind_score_as_real_images(tmp_path: Path, real: Images) -> None:
    """KID within its interval and floor, coverage and density near those of alike sets, nothing memorised, spread 1."""
    report = evaluate(tmp_path, real, images_of(600, 10, 8, 1, seed=1))
    assert (report["samples"], report["reference"]) == (600, 600)
    assert report["features"] == {"name": "random-conv", "dim": 256}
    assert report["kid_low"] < 0 < report["kid_high"]
    assert report["kid"] < report["kid_floor_high"]
    assert report["precision"] > 0.6
    assert report["recall"] > 0.6
    assert report["density"] == pytest.approx(1, abs=0.15)
    assert report["coverage"] > 0.9
    assert report["memorisation_low"] < 0.05 < report["memorisation_high"]
    assert report["memorisation_ratio"] == pytest.approx(1, abs=0.15)
    assert report["duplicates"] < 0.03
    assert report["spread"] == pytest.approx(1, abs=0.1)
    assert any("FID takes 2,048" in note for note in report["notes"])


def test_shifted_samples_are_outside_the_floor(tmp_path: Path, real: Images) -> None:
    """Samples that are a little brighter than the data have a KID whose interval is above 0 and above the floor's."""
    brighter = (images_of(600, 10, 8, 1, seed=1).astype(np.int64) + 25).clip(0, 255).astype(np.uint8)
    report = evaluate(tmp_path, real, brighter)
    assert report["kid_low"] > max(0, report["kid_floor_high"])
    assert report["coverage"] < 0.9


def test_mirrored_copies_show_where_training_mirrors(tmp_path: Path, real: Images) -> None:
    """The nearest training image is the one that was mirrored."""
    data = replace(prepared(tmp_path, real), mirrored=True)
    evaluator = Evaluator(data, config(samples=300, features="random"), torch.device("cpu"))
    report = evaluator.evaluate(drawing(real[:300, :, ::-1]))
    assert report["memorisation"] == 1
    assert [found["example"] for found in report["nearest"]] == list(range(len(report["nearest"])))


def test_collapsed_samples_show(tmp_path: Path, real: Images) -> None:
    """One sample over and over: no spread, all duplicates, next to no coverage or recall."""
    report = evaluate(tmp_path, real, np.repeat(images_of(1, 10, 8, 1, seed=1), 600, axis=0))
    assert report["spread"] == pytest.approx(0, abs=1e-3)
    assert report["duplicates"] == 1
    assert report["coverage"] < 0.05
    assert report["recall"] < 0.05


def test_copies_of_training_images_show(tmp_path: Path, real: Images) -> None:
    """Copies are memorised to the last one, though KID is low, and `nearest` names the images they were copied from."""
    places = np.random.default_rng(1).permutation(1_200)[:600]
    report = evaluate(tmp_path, real, real[places])
    assert report["memorisation"] == 1
    assert report["memorisation_low"] > 0.98
    assert report["memorisation_ratio"] == 0
    assert report["kid"] < report["kid_floor_high"]
    shown = [{"sample": number, "example": int(places[number]), "distance": 0.0} for number in range(8)]
    assert report["nearest"] == shown


def test_the_same_samples_give_the_same_report(tmp_path: Path, real: Images) -> None:
    """Twice by one evaluator and once by another: the same to the last bit, but for the time it took."""
    fake = images_of(600, 10, 8, 1, seed=1)
    evaluator = Evaluator(prepared(tmp_path, real), config(samples=600, features="random"), torch.device("cpu"))
    reports = [evaluator.evaluate(drawing(fake)), evaluator.evaluate(drawing(fake)), evaluate(tmp_path, real, fake)]
    for report in reports:
        assert report.pop("seconds") > 0
    assert reports[0] == reports[1] == reports[2]


def test_an_evaluation_can_be_ended_while_it_looks_at_the_real_images(tmp_path: Path) -> None:
    """Between two batches of them; nothing half-done is kept, and a later evaluation is whole."""
    real, fake, calls = images_of(1_200, 10, 8, 1, seed=0), images_of(200, 10, 8, 1, seed=1), itertools.count()

    def once() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    chosen = config(samples=200, features="random")
    evaluator = Evaluator(prepared(tmp_path, real), chosen, torch.device("cpu"), between=once)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(drawing(fake))
    undisturbed = Evaluator(open_data(tmp_path), chosen, torch.device("cpu"))
    found, expected = (one.evaluate(drawing(fake)) for one in (evaluator, undisturbed))
    assert found["kid"] == expected["kid"]
    assert next(calls) > 4


def test_fid_is_there_when_there_are_enough(tmp_path: Path) -> None:
    """With 2,048 samples and twice as many images there are FID and its floor, and alike sets score about the floor."""
    real, fake = images_of(4_096, 4, 4, 1, seed=0), images_of(2_048, 4, 4, 1, seed=1)
    report = evaluate(tmp_path, real, fake)
    assert report["fid"] == pytest.approx(report["fid_floor"], rel=0.4)
    assert not [note for note in report["notes"] if "FID" in note]


def test_classes_are_judged_by_the_classifier(tmp_path: Path) -> None:
    """Real images as samples cover their classes and are what they were asked for; with one class gone, coverage says so."""
    images, labels = with_classifier(tmp_path)
    evaluator = Evaluator(open_data(tmp_path), config(samples=200), torch.device("cpu"))
    report = evaluator.evaluate(drawing(images, labels))
    assert report["features"]["name"] == "classifier"
    assert 0.9 < report["features"]["accuracy"] <= 1
    assert report["class_coverage"] == 1
    assert report["class_accuracy"] > 0.9
    assert report["spread"] == pytest.approx(1, abs=0.1)
    wrong = evaluator.evaluate(drawing(images, (labels + 1) % 3))
    assert wrong["class_accuracy"] < 0.1
    without = np.concatenate([images[labels > 0], images[labels > 0]])
    report = evaluator.evaluate(drawing(without))
    assert report["class_coverage"] == pytest.approx(2 / 3)
    assert report["class_accuracy"] is None


def test_few_images_are_compared_with_all_of_them(tmp_path: Path) -> None:
    """500 images against 1,000 samples: all 500 are the reference, and the floor is one half against the other."""
    report = evaluate(tmp_path, images_of(500, 6, 6, 3, seed=0), images_of(1_000, 6, 6, 3, seed=1))
    assert (report["samples"], report["reference"]) == (1_000, 500)
    assert any("(250) against the other (250)" in note for note in report["notes"])
    assert report["kid_low"] < 0 < report["kid_high"]
    assert report["kid_floor"] < report["kid_floor_high"]
    assert report["coverage"] > 0.85
    assert report["memorisation_low"] < 0.05 < report["memorisation_high"]


ONE = np.full((1, 6, 6, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (ONE, NUMBERS),
        (np.repeat(ONE, 60, axis=0), {"memorisation", "memorisation_low", "duplicates", "spread", "fid"}),
        (images_of(3, 6, 6, 3), {"kid_floor", "fid", "precision", "recall", "density", "coverage", "duplicates"}),
        (images_of(60, 1, 1, 3), {"fid", "fid_floor", "class_coverage", "class_accuracy"}),
    ],
    ids=["one image", "identical images", "three images", "one pixel"],
)
def test_what_cannot_be_measured_is_null_with_a_reason(tmp_path: Path, data: Images, missing: set[str]) -> None:
    """Data of one image, of identical images, of three, of single pixels: a report, with nulls where there is nothing to say."""
    report = evaluate(tmp_path, data, images_of(60, *data.shape[1:], seed=1))
    assert {name for name in missing if report[name] is not None} == set()
    assert all(note.endswith(".") for note in report["notes"])
    assert len(report["notes"]) >= 2


def test_one_sample_is_too_few_and_none_is_off(tmp_path: Path, real: Images) -> None:
    """A single sample has no KID but a nearest image; an evaluation without samples is refused."""
    report = evaluate(tmp_path, real, images_of(1, 10, 8, 1, seed=1))
    assert report["kid"] is None
    assert len(report["nearest"]) == 1
    with pytest.raises(ValueError, match="turned off"):
        evaluate(tmp_path, real, images_of(1, 10, 8, 1), samples=0)


def test_one_class_and_hidden_labels(tmp_path: Path) -> None:
    """Data of one class and samples asked for it, some images unlabelled: spread is within the class, the rest as always."""
    real = images_of(200, 6, 6, 1)
    data = prepared(tmp_path, real, np.where(np.arange(200) % 5, 0, -1).astype(np.int64), classes=1)
    evaluator = Evaluator(data, config(samples=100, features="random"), torch.device("cpu"))
    report = evaluator.evaluate(drawing(images_of(100, 6, 6, 1, seed=1), np.zeros(100, np.int64)))
    assert report["spread"] == pytest.approx(1, abs=0.2)
    assert report["class_coverage"] is None


def test_importing_it_brings_nothing_heavy() -> None:
    """What the trainer imports for it leaves scikit-learn, scipy, torchvision and torch-fidelity out."""
    program = "import sys, worker.evaluation.evaluator; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy", "torchvision", "torch_fidelity", "onnx"} & set(done.stdout.split())
