"""Losses and penalties against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models import catalog, penalties

REAL = torch.tensor([-3.0, -0.5, 0.0, 2.0, 60.0], dtype=torch.float64)
FAKE = torch.tensor([4.0, 0.25, 0.0, -1.0, -60.0], dtype=torch.float64)
N = len(REAL)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_discriminator_ascends_the_log_likelihood(name: str) -> None:
    """The loss is -E log D(x) - E log(1 - D(G(z))), and its gradients are those of the sigmoid."""
    loss = catalog.losses(name).discriminator_loss
    assert loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))
    torch.testing.assert_close(gradient(lambda t: loss(t, FAKE), REAL), -(1 - REAL.sigmoid()) / N)
    torch.testing.assert_close(gradient(lambda t: loss(REAL, t), FAKE), FAKE.sigmoid() / N)


def test_minimax_generator_descends_log_one_minus_d() -> None:
    """Its gradient is -D(G(z)) / n, which vanishes where D is sure of a fake."""
    slope = gradient(catalog.losses("minimax").generator_loss, FAKE)
    torch.testing.assert_close(slope, -FAKE.sigmoid() / N)
    assert slope[-1].abs() < 1e-20


def test_non_saturating_generator_descends_minus_log_d() -> None:
    """Its gradient is -(1 - D(G(z))) / n, which is full where D is sure of a fake."""
    slope = gradient(catalog.losses("non_saturating").generator_loss, FAKE)
    torch.testing.assert_close(slope, -(1 - FAKE.sigmoid()) / N)
    assert slope[-1].item() == pytest.approx(-1 / N)


@pytest.mark.parametrize("name", list(catalog.LOSSES))
def test_losses_are_finite_scalars_at_extreme_logits(name: str) -> None:
    """No loss overflows where a sigmoid would round to 0 or 1."""
    loss = catalog.losses(name)
    for value in (loss.discriminator_loss(1e4 * REAL, 1e4 * FAKE), loss.generator_loss(1e4 * FAKE)):
        assert value.shape == ()
        assert value.isfinite()


@pytest.mark.parametrize("name", list(catalog.LOSSES))
def test_generator_and_discriminator_pull_apart(name: str) -> None:
    """Where D wants a fake's logit lower, G wants it higher."""
    loss = catalog.losses(name)
    assert (gradient(lambda t: loss.discriminator_loss(REAL, t), FAKE) * gradient(loss.generator_loss, FAKE) <= 0).all()


def test_r1_of_a_linear_discriminator_is_the_norm_of_its_weights() -> None:
    """D(x) = w . x has the gradient w everywhere: R1 = |w|^2, summed over an image's values and not averaged."""
    weight = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    images = torch.ones(5, 2, 3, 4, dtype=torch.float64)
    penalty = penalties.r1(lambda x: (x * weight).sum(dim=(1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())
    torch.testing.assert_close(torch.autograd.grad(penalty, weight)[0], 2 * weight)


def test_r1_of_a_quadratic_discriminator() -> None:
    """D(x) = a |x|^2 / 2 has the gradient a x: R1 = a^2 E|x|^2, and its derivative by a is 2 a E|x|^2."""
    a = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    images = torch.randn(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    norm = images.square().sum(dim=(1, 2, 3)).mean()
    penalty = penalties.r1(lambda x: a * x.square().sum(dim=(1, 2, 3)) / 2, images)
    torch.testing.assert_close(penalty, a**2 * norm)
    torch.testing.assert_close(torch.autograd.grad(penalty, a)[0], 2 * a * norm)


def test_r1_agrees_with_finite_differences_through_a_network() -> None:
    """The derivative of R1 by a weight, which needs the second derivative of D, is the slope that one measures."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 4, dtype=torch.float64, generator=generator).requires_grad_()

    def penalty(w: Tensor) -> Tensor:
        return penalties.r1(lambda x: torch.tanh(x.flatten(1) @ w).pow(2).sum(dim=1), images)

    assert torch.autograd.gradcheck(penalty, (weight,))
