"""Mixtures of classes as labels: over the whole catalog, plain and in the form in which generators sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.catalog import FAMILIES
from models.components import Components
from models.config import DataSpec
from models.generator import LoadedGenerator, latents, load_generator
from models.layers import look_up
from models.randomness import sample_latents
from tests.generators import export_generator
from tests.models.test_components import options

CLASSES = ("a", "b", "c")
HIDING, DIVIDED = {"class_dropout": 0.25}, {"components": 3}
KINDS = [
    (family, more)
    for family in FAMILIES
    for more in ({}, HIDING, *([] if family == "vae" else [DIVIDED, HIDING | DIVIDED]))
]
N = 12


def made(folder: Path, family: str, more: dict[str, Any], precision: str | None) -> LoadedGenerator:
    export_generator(folder, family=family, channels=3, classes=CLASSES, **more)
    generator = load_generator(folder)
    return generator if precision is None else generator.prepared(precision)


@pytest.mark.parametrize("precision", [None, "fp32", "bf16"])
@pytest.mark.parametrize(("family", "more"), KINDS)
def test_a_mixture_of_one_class_is_that_class(
    tmp_path: Path, family: str, more: dict[str, Any], precision: str | None
) -> None:
    """The same to rounding before it is rounded to pixels, and the same pixels, with hidden classes and components too."""
    generator = made(tmp_path, family, more, precision)
    z, labels = latents(generator.info, range(N)), np.arange(N) % 3
    pure = np.eye(3, dtype=np.float32)[labels]
    np.testing.assert_allclose(generator.forward(z, pure), generator.forward(z, labels), atol=1e-6)
    np.testing.assert_array_equal(generator.generate(z, pure), generator.generate(z, labels))


@pytest.mark.parametrize(("family", "more"), KINDS)
def test_small_steps_between_classes_are_small_steps_of_the_image(
    tmp_path: Path, family: str, more: dict[str, Any]
) -> None:
    """On the way from one class to another nothing jumps, and the way leads somewhere."""
    generator = made(tmp_path, family, more, None)
    share = np.linspace(0, 1, 41, dtype=np.float32)[:, None]
    mixtures = (1 - share) * np.eye(3, dtype=np.float32)[0] + share * np.eye(3, dtype=np.float32)[1]
    images = generator.forward(latents(generator.info, [5]).repeat(41, axis=0), mixtures)
    whole, steps = np.abs(images[-1] - images[0]).max(), np.abs(np.diff(images, axis=0)).max()
    assert 0 < steps < 0.5 * whole


def test_a_table_gives_weighted_sums_of_its_rows() -> None:
    """Rows beyond the classes, such as that of a hidden one, have no part in it; classes by number are looked up as ever."""
    table = nn.Embedding(4, 5)
    mixtures = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    found = look_up(table, mixtures)
    torch.testing.assert_close(found[0], 0.25 * table.weight[0] + 0.75 * table.weight[1])
    assert torch.equal(found[1], table.weight[2])
    assert torch.equal(look_up(table, torch.tensor([3, 0])), table.weight[[3, 0]])


def test_components_are_told_by_z_for_each_class_of_a_mixture() -> None:
    """The share of each class goes to the component that the same z has in it."""
    data = DataSpec(examples=9, height=8, width=8, channels=1, classes=("a", "b"))
    components = Components(options(), data)
    components.divide(np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    z = torch.from_numpy(sample_latents(range(200), 4))
    mixed = components(z, torch.tensor([[0.25, 0.75]]).repeat(200, 1))
    assert mixed is not None
    for label, share in ((0, 0.25), (1, 0.75)):
        row = components(z, torch.full((200,), label))
        assert row is not None
        assert mixed[torch.arange(200), row].tolist() == [share] * 200
    assert mixed.count_nonzero(dim=1).tolist() == [2] * 200


@pytest.mark.parametrize(
    "labels",
    [
        [[0.5, 0.4, 0.0], [1, 0, 0]],
        [[0.6, 0.5, 0.0], [1, 0, 0]],
        [[1.5, -0.5, 0.0], [1, 0, 0]],
        [[np.nan, 0.5, 0.5], [1, 0, 0]],
        [[np.inf, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [1, 0, 0]],
        [[0.5, 0.5], [1, 0]],
        [[0.5, 0.5, 0, 0], [1, 0, 0, 0]],
        [[1, 0, 0]],
    ],
)
def test_what_is_no_mixture_is_refused(tmp_path: Path, labels: list[list[float]]) -> None:
    """NaN, negative, not summing to 1, of another number of classes or rows: a ValueError that says what a mixture is."""
    generator = made(tmp_path, "mlp", {}, None)
    with pytest.raises(ValueError, match="mixtures of classes"):
        generator.generate(latents(generator.info, range(2)), np.array(labels, np.float32))
    with pytest.raises(ValueError, match="mixtures of classes"):
        generator.generate(latents(generator.info, range(2)), np.eye(3)[:2])  # float64
