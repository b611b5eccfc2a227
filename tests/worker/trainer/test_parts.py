"""What happens when memory runs out: real allocations that the system refuses."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.worker.runs import prepare, run_here, state
from worker.trainer.failure import TrainingFailed
from worker.trainer.parts import MIXED, SHARED, Parts


def too_large(size: int) -> int:
    """More memory than there is for more than 4 examples."""
    if size > 4:
        torch.empty(size * 2**45)
    return size


def test_memory_that_runs_out_halves_what_is_looked_at_together() -> None:
    """Until it fits; gradients of the tries that failed are gone, and each halving is said."""
    said: list[str] = []
    network = nn.Linear(2, 1)
    network.weight.grad = torch.ones(1, 2)
    parts = Parts(16, lambda code, message: said.append(f"{code}: {message}"), whole=None)
    assert parts.attempt(network, too_large) == 4
    assert parts.size == 4
    assert network.weight.grad is None
    assert [line.split(";")[0] for line in said] == ["micro_batch_halved: The device ran out of memory"] * 2
    assert "4 examples" in said[-1]


@pytest.mark.parametrize(
    ("size", "whole", "reason"),
    [(16, MIXED, "batch normalisation"), (16, SHARED, "processes that share a batch"), (1, None, "single example")],
)
def test_where_halving_cannot_help_the_reason_is_said(size: int, whole: str | None, reason: str) -> None:
    """Under batch normalisation the mathematics would change; less than one example is nothing."""
    parts = Parts(size, lambda *_: None, whole=whole)
    with pytest.raises(TrainingFailed, match=reason) as caught:
        parts.attempt(nn.Linear(1, 1), lambda _size: torch.empty(2**50))
    assert caught.value.code == "out_of_memory"


def test_other_faults_are_no_lack_of_memory() -> None:
    """They come through as they are."""
    with pytest.raises(RuntimeError, match="shape"):
        Parts(4, lambda *_: None, whole=None).attempt(nn.Linear(1, 1), lambda _size: torch.zeros(2).view(3))


@pytest.mark.parametrize("family", ["mlp", "vae"])
def test_gradients_of_parts_add_up_to_those_of_the_batch(tmp_path: Path, family: str) -> None:
    """A run that looks at 2 or 4 examples at a time ends where one does that looks at all 8, but for rounding."""
    data = prepare(tmp_path / "data")
    short = {"network": {"family": family}, "budget": {"examples": 40}}
    whole = state(run_here(tmp_path / "whole", data, **short))
    for size in (2, 4):
        parts = state(run_here(tmp_path / str(size), data, micro_batch=size, **short))
        for name, weight in whole["G"].items():
            torch.testing.assert_close(parts["G"][name], weight, rtol=1e-3, atol=1e-4)
