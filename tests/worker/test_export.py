"""Generators as ONNX files: what goes in and comes out, what they say of themselves, and what is refused."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models.catalog import FAMILIES
from models.generator import latents, load_generator
from models.manifest import WEIGHTS
from tests.generators import export_generator
from tests.source import HOUSE
from worker import export

CLASSES = (
    "cat",
    "dog",
    "löwe",
    "owl",
    "cow",
    "hen",
    "pig",
    "ant",
    "bee",
    "elk",
)  # more than one batch of the comparison


KINDS = [{"family": family} for family in FAMILIES] + [{"family": "dcgan", "components": 3}]


@pytest.mark.parametrize("classes", [(), CLASSES], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("network", KINDS, ids=[*FAMILIES, "components"])
def test_every_family_can_be_exported(network: dict[str, Any], classes: tuple[str, ...], tmp_path: Path) -> None:
    """ONNX Runtime makes of any number of z and labels the images that we make; the file says what it is, and nothing of here."""
    sha256 = export_generator(tmp_path, channels=3 if classes else 1, classes=classes, **network)
    out = tmp_path / "generator.onnx"
    difference = export.export_onnx(tmp_path, out)

    generator = load_generator(tmp_path)
    z = latents(generator.info, range(100, 113))
    labels = np.arange(13) % len(classes) if classes else None
    given = {"z": z} if labels is None else {"z": z, "labels": labels}
    (images,) = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"]).run(None, given)
    assert images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert np.abs(images - generator.forward(z, labels).clip(-1, 1)).max() <= export.TOLERANCE

    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", export.OPSET)]
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == [*given, "images"]
    assert {each.key: each.value for each in model.metadata_props} == {
        "family": network["family"],
        "classes": json.dumps(classes, ensure_ascii=False),
        "dataset_sha256": "d" * 64,
        "generator_sha256": sha256,
        "ganvil_version": version("ganvil"),
        "max_abs_difference": f"{difference:.3g}",
    }
    assert str(HOUSE).encode() not in out.read_bytes()


def test_a_file_that_gives_other_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever differs by more than is allowed is an error that says by how much, and leaves no file."""
    export_generator(tmp_path)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(export.ExportError, match="by up to"):
        export.export_onnx(tmp_path, tmp_path / "generator.onnx")
    assert not (tmp_path / "generator.onnx").exists()


def test_the_comparison_sees_other_weights(tmp_path: Path) -> None:
    """The file of one generator is far from the images of another with the same shape."""
    for seed in (0, 1):
        export_generator(tmp_path / str(seed), seed=seed)
    export.export_onnx(tmp_path / "0", tmp_path / "generator.onnx")
    other = load_generator(tmp_path / "1")
    assert export.largest_difference(other, (tmp_path / "generator.onnx").read_bytes()) > 0.1


def test_a_damaged_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program says in its last line what is wrong, and leaves no file."""
    export_generator(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    assert export.main([str(tmp_path), str(tmp_path / "out.onnx")]) == export.FAILED
    assert "is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.onnx").exists()


def test_without_the_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main([str(tmp_path), str(tmp_path / "out.onnx")]) == export.NOT_INSTALLED
    assert capsys.readouterr().err.splitlines()[-1].endswith("pip install onnxruntime")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """When the pipe closes, as it does when whoever holds it dies, the program ends without a file."""
    export_generator(tmp_path)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "worker.export", tmp_path, tmp_path / "out.onnx", "--stop-fd", str(read_end)]
    with subprocess.Popen(command, cwd=HOUSE, pass_fds=[read_end]) as child:
        os.close(read_end)
        os.close(write_end)
        assert child.wait(60) == 1
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(("classes", "batches"), [(0, 2), (1, 2), (3, 2), (9, 3), (441, 64), (442, 64), (100_000, 64)])
def test_every_class_is_compared_up_to_some_hundreds(classes: int, batches: int) -> None:
    """Then some hundreds that are spread evenly, the first and the last among them: the comparison has an end."""
    found = export._batches(classes)
    assert len(found) == batches
    assert [len(batch) for batch in found] == [1, *[export.BATCH] * (batches - 1)]
    compared = {seed % max(classes, 1) for batch in found for seed in batch}
    if classes <= 441:
        assert compared >= set(range(classes))
    else:
        assert {0, 1, classes - 1} <= compared
        assert len(compared) > 440
