"""Adam and the average of weights."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from models import ema
from models.adam import Adam
from models.config import Ema


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def some_images(step: int) -> torch.Tensor:
    return torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(step))


def test_adam_is_torchs_adam() -> None:
    """Ten steps end at the same weights as torch.optim.Adam's."""
    ours, theirs = network(), network()
    mine, reference = (
        Adam(ours, beta1=0.5),
        torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.5, 0.99), fused=True),
    )
    for step in range(10):
        for net, move in ((ours, partial(mine.step, lr=1e-2, beta2=0.99)), (theirs, reference.step)):
            net(some_images(step)).square().sum().backward()
            move()
            net.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_adam_goes_on_from_its_state() -> None:
    """A second optimiser with the first one's state takes the same next step."""
    first = network()
    adam = Adam(first, beta1=0.5)
    first(some_images(0)).square().sum().backward()
    adam.step(lr=1e-2, beta2=0.99)
    second = copy.deepcopy(first)
    other = Adam(second, beta1=0.5)
    other.load_state_dict(copy.deepcopy(adam.state_dict()))
    for net, optimizer in ((first, adam), (second, other)):
        net(some_images(1)).square().sum().backward()
        optimizer.step(lr=1e-2, beta2=0.99)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_adam_refuses_another_networks_state() -> None:
    """State of other shapes is an error, not a silent broadcast."""
    adam = Adam(network(), beta1=0.5)
    with pytest.raises(ValueError, match=r"shapes|shorter|longer"):
        adam.load_state_dict(Adam(nn.Linear(1, 1), beta1=0.5).state_dict())


def test_half_of_the_old_average_is_left_after_a_half_life() -> None:
    """Batches that add up to the half-life keep one half of what was there, whatever their size."""
    settings = Ema(half_life=1000, ramp=1.0)
    for batch in (10, 100, 500):
        assert ema.decay(settings, batch, 10**9) ** (1000 / batch) == pytest.approx(0.5)


def test_average_warms_up() -> None:
    """Early on the half-life is a share of what was seen, so that the first weights are soon forgotten."""
    settings = Ema(half_life=10_000, ramp=0.05)
    decays = [ema.decay(settings, 64, seen) for seen in (64, 640, 6_400, 64_000, 640_000)]
    assert decays == sorted(decays)
    assert decays[0] < 1e-5
    assert decays[1] == pytest.approx(0.5 ** (64 / 32))
    assert decays[-1] == pytest.approx(0.5 ** (64 / 10_000))


def test_no_half_life_means_no_average() -> None:
    """With a half-life of 0 the average is the network itself."""
    average, current = network(), network()
    with torch.no_grad():
        current[3].weight.add_(1)
    ema.update(average, current, ema.decay(Ema(half_life=0), 64, 1000))
    assert torch.equal(average[3].weight, current[3].weight)


def test_average_is_linear_in_weights_and_running_statistics() -> None:
    """Weights and batch statistics are averaged alike; the counter of batches is copied."""
    average, current = network(), network()
    current(some_images(0))
    with torch.no_grad():
        current[0].weight.add_(1)
    expected = torch.lerp(average[1].running_mean, current[1].running_mean, 0.25)
    before = average[0].weight.clone()
    ema.update(average, current, 0.75)
    torch.testing.assert_close(average[0].weight, before + 0.25)
    torch.testing.assert_close(average[1].running_mean, expected)
    assert average[1].num_batches_tracked == 1
