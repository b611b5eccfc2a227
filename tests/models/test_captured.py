"""Networks that are recorded do what they did. Where there is a GPU it records; elsewhere a stand-in for its graphs shows the rest."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from models import captured
from models.captured import Captured, Recording

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Network(nn.Module):
    """Takes labels or none, as generators do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x: Tensor = self.layer(z)
        return x if labels is None else x + labels[:, None]


class Repeated:
    """Does as a CUDA graph does: the same again, from memory to memory."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.replay = work


def by_repeating(network: nn.Module, given: Sequence[Tensor]) -> Recording:
    inputs = [each.clone() for each in given]
    result = network(*inputs)
    return Recording(Repeated(lambda: result.copy_(network(*inputs))), inputs, result)


RECORDS = [captured.record, by_repeating]


@pytest.mark.parametrize("record", RECORDS)
def test_it_does_what_the_network_does(record: Callable[..., Recording | None]) -> None:
    """For every size, with labels and without; what was given out before stays what it was."""
    network = Network().to(DEVICE)
    recorded = Captured(network, record)
    asked = [
        (torch.randn(rows, 3, device=DEVICE), labels)
        for _ in range(3)
        for rows in (1, 4, 8)
        for labels in (None, torch.randint(9, (rows,), device=DEVICE))
    ]
    with torch.inference_mode():
        answers = [recorded(*each) for each in asked]
        for answer, each in zip(answers, asked, strict=True):
            assert torch.equal(answer, network(*each))
    there = [each for each in recorded._recordings.values() if each is not None]
    assert len(there) == (0 if DEVICE == "cpu" and record is captured.record else 6)


def test_threads_get_their_own() -> None:
    """Those that ask for the same size at once, too."""
    network = Network()
    recorded = Captured(network, by_repeating)

    @torch.inference_mode()
    def ask(number: int) -> bool:
        z = torch.full((4, 3), float(number))
        return torch.equal(recorded(z), network.layer(z))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(400)))


def test_few_sizes_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others run as they are."""
    monkeypatch.setattr(captured, "MOST_RECORDINGS", 2)
    network = Network()
    recorded = Captured(network, by_repeating)
    with torch.inference_mode():
        for rows in (1, 2, 3, 4):
            z = torch.randn(rows, 3)
            assert torch.equal(recorded(z), network.layer(z))
    assert len(recorded._recordings) == 2


def test_a_mistake_is_told_as_the_network_tells_it() -> None:
    """Trying to record hides nothing."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Captured(Network().to(DEVICE))(torch.randn(4, 5, device=DEVICE))
