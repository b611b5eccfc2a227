"""Generators in the form in which they sample fastest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.catalog import FAMILIES
from models.generator import LoadedGenerator, latents, load_generator
from models.layers import BatchNorm
from tests.generators import export_generator

N = 32


def sampled(folder: Path, precision: str | None) -> np.ndarray:
    generator = load_generator(folder)
    generator = generator if precision is None else generator.prepared(precision)
    labels = np.arange(N) % 3 if generator.info.conditional else None
    return generator.generate(latents(generator.info, range(N)), labels).astype(int)


@pytest.fixture(params=[(family, classes) for family in FAMILIES for classes in ((), ("a", "b", "c"))], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family, classes = request.param
    components = {} if family == "vae" else {"components": 3}
    export_generator(tmp_path, family=family, size=16, channels=3, classes=classes, **components)
    return tmp_path


def test_in_float32_hardly_a_pixel_changes(folder: Path) -> None:
    """No 8-bit value is off by more than one, and few are off at all."""
    difference = np.abs(sampled(folder, None) - sampled(folder, "fp32"))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_in_bfloat16_the_images_are_the_same_to_the_eye(folder: Path) -> None:
    """All samples stay what they are, also those next to the edge between two components, and hardly differ."""
    difference = np.abs(sampled(folder, None) - sampled(folder, "bf16"))
    assert difference.mean() < 3
    assert difference.mean(axis=(1, 2, 3)).max() < 8


def trained(generator: LoadedGenerator) -> None:
    """Statistics, gains and biases as training leaves them, and no longer the first ones."""
    dice = torch.Generator().manual_seed(0)
    for name, tensor in generator._network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=dice) * 3 + 0.1)
        elif name.endswith("running_mean") or ("norms" in name and tensor.is_floating_point()):
            tensor.add_(torch.randn(tensor.shape, generator=dice) * 0.3)


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_batch_normalisation_is_in_the_weights(tmp_path: Path, classes: tuple[str, ...]) -> None:
    """With the statistics of a trained network too, none is left to do and the images stay the same."""
    export_generator(tmp_path, size=16, channels=3, classes=classes)
    plain, prepared = load_generator(tmp_path), load_generator(tmp_path)
    for generator in (plain, prepared):
        trained(generator)
    prepared = prepared.prepared()
    assert not any(isinstance(module, BatchNorm | nn.BatchNorm2d) for module in prepared._network.modules())
    z, labels = latents(plain.info, range(N)), np.arange(N) % 3 if classes else None
    np.testing.assert_allclose(prepared.forward(z, labels), plain.forward(z, labels), atol=2e-5)
