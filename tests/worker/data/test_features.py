"""The classifier that is trained beside a data set: when there is one, and that the data set never suffers from it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.source import HOUSE
from tests.worker.preparing import events, leftovers, prepare_archive, request, start
from worker.data import FEATURES_FILE, PREPARED_FILES, features
from worker.data.features import ALIKE, TOO_FEW, are_enough
from worker.data.prepare import prepare
from worker.data.progress import Progress, Stopped
from worker.evaluation.classifier import load_classifier

RNG = np.random.default_rng(11)
WITHOUT = set(PREPARED_FILES)
WITH = {FEATURES_FILE, *PREPARED_FILES}


def upload(folder: Path, n: int = 240, classes: int = 2, side: int = 8, shape=None, *, alike: bool = False) -> Path:
    """An npz of noise, the brighter the higher the class."""
    labels = np.arange(n) % classes
    images = RNG.integers(0, 40, shape or (n, side, side)).astype(np.uint8)
    if alike:
        images[:] = 7
    else:
        images += (200 // classes * labels).astype(np.uint8).reshape(-1, *[1] * (images.ndim - 1))
    np.savez(folder / "upload.npz", images=images, labels=labels)
    return folder / "upload.npz"


@pytest.mark.parametrize(
    ("counts", "enough"),
    [
        ([], False),
        ([1000], False),
        ([1000, 9], False),
        ([1000, 10], True),
        ([190, 10], True),
        ([100, 99], False),
        ([9] * 100, False),
        ([10, 10, *[1] * 180], True),
    ],
)
def test_what_is_enough(counts, enough):
    """Two classes of ten images or more, and two hundred labelled images in all."""
    assert are_enough(counts) is enough


def test_classifier_is_written(tmp_path):
    """The folder holds the classifier, and dataset.json says how good it is and which bytes it has."""
    found = prepare_archive(tmp_path, upload(tmp_path))
    folder = tmp_path / "prepare"
    assert leftovers(folder) == WITH
    classifier = load_classifier(folder)
    assert classifier is not None
    assert found.document["features"] == {
        "accuracy": classifier.accuracy,
        "baseline": classifier.baseline,
        "held_out": 24,
        "dim": classifier.dim,
        "sha256": hashlib.sha256((folder / FEATURES_FILE).read_bytes()).hexdigest(),
    }
    assert classifier.accuracy > 0.9
    assert "features" not in found.report


@pytest.mark.parametrize(
    ("changes", "reason"), [({"n": 190}, TOO_FEW), ({"classes": 1}, TOO_FEW), ({"alike": True}, ALIKE)]
)
def test_report_says_why_there_is_none(tmp_path, changes, reason):
    """Too few images, one class, and identical images each give a good data set without a classifier, and the reason."""
    found = prepare_archive(tmp_path, upload(tmp_path, **changes))
    assert leftovers(tmp_path / "prepare") == WITHOUT
    assert "features" not in found.document
    assert found.report["features"] == reason


def test_digest_does_not_depend_on_it(tmp_path, monkeypatch):
    """The same images are the same data set, with a classifier and without."""
    archive = upload(tmp_path)
    with_it = prepare_archive(tmp_path, archive)
    monkeypatch.setattr(features, "LEAST_LABELLED", 1000)
    without = prepare_archive(tmp_path, archive)
    assert leftovers(tmp_path / "prepare") == WITHOUT  # nothing is left of an earlier one
    assert with_it.document["sha256"] == without.document["sha256"]


def test_data_set_survives_a_classifier_that_dies(tmp_path, monkeypatch):
    """A process that is killed while it trains costs the classifier and nothing else; the report tells."""
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no Python starts from there
    found = prepare_archive(tmp_path, upload(tmp_path))
    assert leftovers(tmp_path / "prepare") == WITHOUT
    assert "ended with status 1" in found.report["features"]
    assert len(found.examples) == 240


def test_progress_goes_on_through_training(tmp_path):
    """The last third of the progress is the classifier's; it never goes back and never beyond the number of images."""
    request(tmp_path / "p", upload(tmp_path, n=3000))
    shares = []
    prepare(tmp_path / "p", 1, Progress(lambda done, total: shares.append(done / max(total, 1)), lambda: False))
    assert shares == sorted(shares)
    assert any(2 / 3 < share < 1 for share in shares)
    assert shares[-1] <= 1


def test_stopping_while_it_trains(tmp_path):
    """Asked to stop, a preparation ends its classifier with it and leaves nothing."""
    request(tmp_path / "p", upload(tmp_path, n=3000))
    done: list[int] = []
    began = []

    def should_stop() -> bool:
        if done and done[-1] > 2000:
            began.append(time.monotonic())
        return bool(began)

    with pytest.raises(Stopped):
        prepare(tmp_path / "p", 1, Progress(lambda passed, _total: done.append(passed), should_stop))
    assert time.monotonic() - began[0] < 2
    assert leftovers(tmp_path / "p") == set()


def test_killing_ends_the_classifier_too(tmp_path):
    """When the preparation is killed outright, the process that trains notices and ends."""
    request(tmp_path / "p", upload(tmp_path, n=20_000, side=16))
    with start(tmp_path / "p", "--processes", "1") as process:
        deadline = time.monotonic() + 60
        while not any(event["data"].get("done", 0) > 13_400 for event in events(tmp_path / "p")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    while any(is_of(process.pid, entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_of(session: int, entry: Path) -> bool:
    """Whether the process lives and belongs to the session."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[3]) == session and fields[0] != "Z"


def test_preparing_needs_no_torch_of_its_own(tmp_path):
    """The process that prepares never imports torch; only the one that trains does."""
    request(tmp_path, upload(tmp_path))
    program = "import sys; from worker.data.__main__ import main; sys.exit(main(sys.argv[1:]) or 10 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", program, str(tmp_path), "--processes", "1"]
    assert subprocess.run(command, cwd=HOUSE, timeout=60, check=False).returncode == 0
    assert (tmp_path / FEATURES_FILE).exists()


@pytest.mark.parametrize(
    ("shape", "labels", "resolution"),
    [
        ((1, 8, 8), None, None),
        ((1, 1, 1), None, None),
        ((5, 2, 1), None, None),
        ((5, 1, 1), [0] * 5, None),
        ((3, 1, 1), None, 4),
        ((250, 2, 1), [0, 1] * 125, None),
        ((250, 1, 1, 3), [0, 1] * 125, None),
    ],
)
def test_degenerate_data_ends_ready(tmp_path, shape, labels, resolution):
    """One image, one class, one pixel or two: each is a data set, or is enlarged to what the smallest network makes."""
    arrays = {"images": RNG.integers(0, 256, shape).astype(np.uint8)}
    np.savez(tmp_path / "upload.npz", **arrays, **({} if labels is None else {"labels": np.array(labels)}))
    found = prepare_archive(tmp_path, tmp_path / "upload.npz", **({"resolution": resolution} if resolution else {}))
    assert len(found.examples) == shape[0]
    assert found.examples.shape[1:3] == ((resolution,) * 2 if resolution else (8, 8))
    assert found.report["sizes"] == [{"width": shape[2], "height": shape[1], "count": shape[0]}]
    assert json.loads((tmp_path / "prepare" / "dataset.json").read_bytes()) == found.document
