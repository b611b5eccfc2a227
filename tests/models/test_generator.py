"""Loading a model file and sampling from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.catalog import FAMILIES
from models.generator import LoadedGenerator, ModelFileError, latents, load_generator, to_uint8
from models.memory import is_out_of_memory
from tests.generators import export_generator


@pytest.fixture(params=list(FAMILIES))
def generator(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedGenerator:
    export_generator(tmp_path, family=request.param, channels=3, classes=("a", "b"))
    return load_generator(tmp_path)


def test_a_seed_is_an_address(generator: LoadedGenerator) -> None:
    """The same z and label give the same bytes, again and from a second load."""
    z, labels = latents(generator.info, [3, 4]), np.array([0, 1])
    images = generator.generate(z, labels)
    assert images.dtype == np.uint8
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images, generator.generate(z, labels))


@pytest.mark.parametrize("n", [1, 7, 64])
def test_a_sample_hardly_sees_its_company(generator: LoadedGenerator, n: int) -> None:
    """In batches of 1, 7 and 64 a seed's pixels agree to one level of 255; bit-equality is for the server to verify."""
    alone = generator.generate(latents(generator.info, [5]), np.array([1]))
    batch = generator.generate(latents(generator.info, range(5, 5 + n)), np.ones(n, np.int64))
    assert np.abs(alone[0].astype(int) - batch[0].astype(int)).max() <= 1


def test_truncation_draws_towards_the_mean(generator: LoadedGenerator) -> None:
    """Truncation scales z, and 1 leaves it alone."""
    full = latents(generator.info, [1, 2])
    np.testing.assert_array_equal(latents(generator.info, [1, 2], 1.0), full)
    np.testing.assert_allclose(latents(generator.info, [1, 2], 0.5), full / 2)


def test_nothing_gives_nothing(generator: LoadedGenerator) -> None:
    """An empty batch is an empty array of the right shape."""
    empty = generator.generate(np.empty((0, generator.info.z_dim), np.float32), np.empty(0, np.int64))
    assert empty.shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("z_shape", "labels"), [((2, 5), [0, 1]), ((2, 16), None), ((2, 16), [0]), ((2, 16), [0, 2]), ((2, 16), [-1, 0])]
)
def test_wrong_inputs_are_refused(
    generator: LoadedGenerator, z_shape: tuple[int, int], labels: list[int] | None
) -> None:
    """A wrong shape, a missing label and a label that does not exist are ValueErrors."""
    with pytest.raises(ValueError, match=r"z has|labels"):
        generator.generate(np.zeros(z_shape, np.float32), None if labels is None else np.array(labels))


def test_size_in_memory_is_known(generator: LoadedGenerator, tmp_path: Path) -> None:
    """nbytes is about what the file holds."""
    assert generator.nbytes == pytest.approx((tmp_path / "generator.safetensors").stat().st_size, rel=0.2)


def damage_weights(folder: Path) -> None:
    content = bytearray((folder / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "generator.safetensors").write_bytes(content)


def truncate_weights(folder: Path) -> None:
    path = folder / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def remove_weights(folder: Path) -> None:
    (folder / "generator.safetensors").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / "model.json").unlink()


def garble_manifest(folder: Path) -> None:
    (folder / "model.json").write_text("{", encoding="utf-8")


def garble_deeply(folder: Path) -> None:
    (folder / "model.json").write_text("[" * 200_000, encoding="utf-8")


def describe(**changes: Any) -> Callable[[Path], None]:
    """Has the manifest say something else, of its network too where that has such a part."""

    def change(folder: Path) -> None:
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        manifest["network"] |= changes.get("network", {})
        manifest |= {part: value for part, value in changes.items() if part != "network"}
        (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "damage",
    [
        damage_weights,
        truncate_weights,
        remove_weights,
        remove_manifest,
        garble_manifest,
        garble_deeply,
        describe(z_dim=99, network={"z_dim": 99}),
        describe(z_dim=99),
        describe(network={"family": "alexnet"}),
        describe(family="mlp"),
        describe(height=9),
        describe(width=10**9),
        describe(channels=4),
        describe(classes=[]),
        describe(classes=["a", "b", "c"]),
        describe(conditional=False),
        describe(conditional=False, network={"conditional": False}),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: object) -> None:
    """A file that is missing, cut, changed or not what its manifest says is a ModelFileError."""
    export_generator(tmp_path, classes=["a", "b"])
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ModelFileError):
        load_generator(tmp_path)


def test_a_lack_of_memory_is_no_damage(tmp_path: Path) -> None:
    """What does not fit into memory comes through as that."""
    export_generator(tmp_path, family="mlp")
    describe(height=10**7, width=10**7)(tmp_path)
    with pytest.raises(RuntimeError) as short:
        load_generator(tmp_path)
    assert is_out_of_memory(short.value)


def test_pixels_cover_the_range() -> None:
    """-1 is 0, 0 is the middle, 1 is 255, and what lies beyond is clipped."""
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)
    assert to_uint8(images).ravel().tolist() == [0, 0, 128, 255, 255]
