"""Recordings do what the network does; without a GPU, which alone can record, the network itself runs."""

import pytest
import torch
from torch import Tensor, nn

from models.captured import Captured

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Network(nn.Module):
    """Takes labels or none, as generators do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x: Tensor = self.layer(z)
        return x if labels is None else x + labels[:, None]


def test_it_does_what_the_network_does(caplog: pytest.LogCaptureFixture) -> None:
    """For every size, the second time as the first; what cannot be recorded is tried once and not at every forward."""
    network = Network().to(DEVICE)
    captured = Captured(network)
    with torch.inference_mode():
        for turn in range(3):
            for rows in (1, 4, 8):
                z, labels = torch.randn(rows, 3, device=DEVICE), torch.arange(rows, device=DEVICE) + turn
                torch.testing.assert_close(captured(z), network(z))
                torch.testing.assert_close(captured(z, labels), network(z, labels))
    assert caplog.text.count("cannot be recorded") == (0 if DEVICE == "cuda" else 6)


def test_a_mistake_is_told_as_the_network_tells_it() -> None:
    """Trying to record hides nothing."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Captured(Network().to(DEVICE))(torch.randn(4, 5, device=DEVICE))
