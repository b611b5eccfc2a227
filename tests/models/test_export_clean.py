"""Every family's generator can be captured as one graph, as formats for other programs need it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models import catalog
from models.build import build_generator
from models.config import DataSpec

ADVERSARIAL = [name for name, family in catalog.FAMILIES.items() if family.game == "adversarial"]
DATA = DataSpec(examples=9, height=8, width=12, channels=3, classes=("a", "b", "c"))


PLAIN = [{"conditional": False}, {"conditional": True, "class_dropout": 0.1}]


@pytest.mark.parametrize(
    ("family", "network"),
    [(family, network) for family in catalog.FAMILIES for network in PLAIN]
    + [(family, {**network, "components": 3}) for family in ADVERSARIAL for network in PLAIN],
)
def test_a_captured_generator_makes_the_same_images(family: str, network: dict[str, Any]) -> None:
    """The graph captured from a batch of two makes of other batches, of one and of five, what the generator does."""
    options = catalog.parse_network({"family": family, "z_dim": 6, **network})
    G = build_generator(options, DATA, 0, torch.device("cpu")).eval()
    inputs, batch = given(2, network["conditional"]), torch.export.Dim("batch", min=1)
    captured = torch.export.export(G, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs)).module()
    for n in (1, 5):
        torch.testing.assert_close(captured(*given(n, network["conditional"])), G(*given(n, network["conditional"])))


def given(n: int, conditional: bool) -> tuple[Tensor, ...]:
    """n latents, and as many labels, among them that of a hidden class, for a conditional generator."""
    z = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    return (z, torch.arange(3, 3 - n, -1) % 4) if conditional else (z,)
