"""The controller of ADA's probability."""

import pytest
import torch

from models.augment.control import next_probability
from models.config import Augment

AUGMENT = Augment(kind="ada", target=0.6, speed=1_000, most=0.8)


def after(probability: float, sign: float, examples: int = 100) -> float:
    return next_probability(torch.tensor(probability), torch.tensor(sign), examples, AUGMENT).item()


def test_it_rises_while_the_discriminator_is_too_sure_and_falls_when_it_is_not() -> None:
    """At the stated speed, whatever the distance from the target: speed examples take it from 0 to 1."""
    assert after(0.3, sign=0.61) == after(0.3, sign=1.0) == pytest.approx(0.4)
    assert after(0.3, sign=0.59) == after(0.3, sign=-1.0) == pytest.approx(0.2)
    assert after(0.3, sign=0.9, examples=250) == pytest.approx(0.55)


def test_it_stays_at_the_target() -> None:
    """A mean sign that is the target's moves nothing."""
    target = torch.tensor(0.6, dtype=torch.float64)
    assert next_probability(torch.tensor(0.3, dtype=torch.float64), target, 100, AUGMENT).item() == 0.3


def test_it_is_kept_between_nothing_and_the_most() -> None:
    """It cannot fall under 0, nor rise so high that transforms leak into the samples."""
    assert after(0.05, sign=0.0) == 0
    assert after(0.75, sign=1.0) == pytest.approx(0.8)
    assert after(0.8, sign=1.0, examples=10**9) == pytest.approx(0.8)


def test_it_takes_as_many_examples_as_stated_whatever_the_batch() -> None:
    """From 0 to 0.5 in half of the speed's examples, in steps of any size."""
    for step in (1, 10, 125):
        probability = torch.tensor(0.0)
        for _ in range(500 // step):
            probability = next_probability(probability, torch.tensor(0.9), step, AUGMENT)
        assert probability.item() == pytest.approx(0.5, abs=1e-4)


def test_nothing_is_read_on_the_host() -> None:
    """It works on tensors without values, and the result stays where the probability lies."""
    probability = torch.empty((), device="meta")
    following = next_probability(probability, probability, 64, AUGMENT)
    assert following.device.type == "meta"
    assert following.shape == ()
