"""What a small upload cannot be asked to become, and whom the limits on uploads do not concern."""

import json

import pytest

from tests.strategies import distinct, write_zip
from tests.worker.preparing import load, prepare_archive, refusal
from worker.data.prepare import prepare
from worker.data.progress import Progress


@pytest.fixture
def archive(tmp_path):
    """Four gray images of 8 x 8."""
    return write_zip(tmp_path / "upload.zip", {f"{number}.png": data for number, data in enumerate(distinct(4, 8))})


def test_prepared_size_is_limited(tmp_path, archive):
    """Examples that would take more than the limit are refused with both numbers; one byte decides."""
    limit = 4 * 32 * 32
    assert prepare_archive(tmp_path, archive, {"prepared_bytes": limit}, resolution=32).examples.nbytes == limit
    error = refusal(tmp_path, archive, {"prepared_bytes": limit - 1}, resolution=32)
    assert error.code == "prepared_too_large"
    assert all(text in error.message for text in (str(limit), str(limit - 1), "smaller resolution"))


def test_absurd_enlargement_is_refused(tmp_path, archive):
    """Images are enlarged up to 16 times and not more, whatever room there is."""
    assert prepare_archive(tmp_path, archive, resolution=128).examples.shape == (4, 128, 128, 1)
    error = refusal(tmp_path, archive, resolution=129)
    assert (error.code, "smaller resolution" in error.message) == ("prepared_too_large", True)


def test_digits_are_no_upload(tmp_path):
    """Limits that an operator sets on uploaded archives leave the builtin digits alone."""
    document = {"source": {"kind": "builtin", "name": "digits"}, "limits": {"members": 10, "pixels": 10}}
    (tmp_path / "prepare.json").write_text(json.dumps(document), encoding="utf-8")
    prepare(tmp_path, 1, Progress(lambda _done, _total: None, lambda: False))
    assert len(load(tmp_path).examples) == 1797
