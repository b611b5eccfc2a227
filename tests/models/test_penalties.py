"""Penalties against closed forms, and against finite differences where there are none."""

import pytest
import torch
from torch import Tensor

from models import penalties


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gradient_norm_of_a_linear_discriminator_is_that_of_its_weights() -> None:
    """D(x) = w . x has the gradient w everywhere: |w|^2, summed over an image's values and not averaged."""
    weight = normal(2, 3, 4, seed=0).requires_grad_()
    images = torch.ones(5, 2, 3, 4, dtype=torch.float64)
    penalty = penalties.gradient_norm2(lambda x: (x * weight).sum(dim=(1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())
    torch.testing.assert_close(torch.autograd.grad(penalty, weight)[0], 2 * weight)


def test_gradient_norm_of_a_quadratic_discriminator() -> None:
    """D(x) = a |x|^2 / 2 has the gradient a x: a^2 E|x|^2, and its derivative by a is 2 a E|x|^2."""
    a = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    images = normal(6, 1, 3, 3, seed=1)
    norm = images.square().sum(dim=(1, 2, 3)).mean()
    penalty = penalties.gradient_norm2(lambda x: a * x.square().sum(dim=(1, 2, 3)) / 2, images)
    torch.testing.assert_close(penalty, a**2 * norm)
    torch.testing.assert_close(torch.autograd.grad(penalty, a)[0], 2 * a * norm)


def tanh_critic(weight: Tensor) -> penalties.Critic:
    """Images [n, 1, 2, 2] to logits, with a weight [4, 4]."""
    return lambda x: torch.tanh(x.flatten(1) @ weight).pow(2).sum(dim=1)


def test_gradient_norm_agrees_with_finite_differences_through_a_network() -> None:
    """Its derivative by a weight, which needs the second derivative of D, is the slope that one measures."""
    images, weight = normal(3, 1, 2, 2, seed=2), normal(4, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: penalties.gradient_norm2(tanh_critic(w), images), (weight,))


def test_penalties_send_nothing_back_to_the_generator() -> None:
    """Images that a generator made are taken as they are: R2 trains D alone."""
    source = normal(3, 1, 2, 2, seed=4).requires_grad_()
    critic = tanh_critic(normal(4, 4, seed=5).requires_grad_())
    mix = torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64)
    penalty = penalties.gradient_norm2(critic, 2 * source) + penalties.gradient_penalty(critic, source, -source, mix)
    assert torch.autograd.grad(penalty, source, allow_unused=True) == (None,)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_estimate_of_a_linear_discriminator_has_the_exact_norm_as_its_mean(scale: float) -> None:
    """(D(x) - D(x + s e)) / s = -w . e whatever s is: over many draws of e its square comes to |w|^2, and spreads as stated."""
    weight, n = normal(2, 3, 4, seed=6), 40_000
    images, noise = normal(1, 2, 3, 4, seed=7).expand(n, -1, -1, -1), normal(n, 2, 3, 4, seed=8)
    exact = weight.square().sum().item()
    estimate = penalties.gradient_norm2_estimate(lambda x: (x * weight).sum(dim=(1, 2, 3)), images, noise, scale)
    assert estimate.item() == pytest.approx(exact, abs=4 * exact * (2 / n) ** 0.5)


def test_estimate_of_a_quadratic_discriminator_comes_to_the_exact_norm() -> None:
    """D(x) = |x|^2 / 2 over many draws of e: E|x|^2, and s^2 E|e|^4 / 4 more, which a small s makes vanish."""
    n, size = 40_000, 9
    images, noise = normal(1, 1, 3, 3, seed=9).expand(n, -1, -1, -1), normal(n, 1, 3, 3, seed=10)
    exact = images[0].square().sum().item()

    def estimate(scale: float) -> float:
        return penalties.gradient_norm2_estimate(
            lambda x: x.square().sum(dim=(1, 2, 3)) / 2, images, noise, scale
        ).item()

    assert estimate(0.01) == pytest.approx(exact, rel=0.03)
    assert estimate(1.0) - estimate(0.01) == pytest.approx(size * (size + 2) / 4, rel=0.1)


def test_estimate_trains_the_discriminator_as_the_exact_norm_does() -> None:
    """Its derivative by a weight, by one backward pass, is on average that of the exact norm."""
    n = 40_000
    images, noise = normal(1, 1, 2, 2, seed=11).expand(n, -1, -1, -1), normal(n, 1, 2, 2, seed=12)
    weight = (normal(4, 4, seed=13) / 2).requires_grad_()
    exact = torch.autograd.grad(penalties.gradient_norm2(tanh_critic(weight), images), weight)[0]
    estimate = penalties.gradient_norm2_estimate(tanh_critic(weight), images, noise)
    cheap = torch.autograd.grad(estimate, weight)[0]
    assert (cheap - exact).norm() < 0.05 * exact.norm()


def test_gradient_penalty_of_a_linear_discriminator_is_its_distance_from_slope_one() -> None:
    """D(x) = w . x: (|w| - 1)^2 wherever it is taken, and none for a slope of 1."""
    weight = normal(1, 2, 3, seed=14).requires_grad_()
    real, fake, mix = normal(5, 1, 2, 3, seed=15), normal(5, 1, 2, 3, seed=16), torch.linspace(0, 1, 5).view(5, 1, 1, 1)
    penalty = penalties.gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), real, fake, mix)
    norm = weight.detach().norm()
    torch.testing.assert_close(penalty, (weight.norm() - 1).square())
    torch.testing.assert_close(torch.autograd.grad(penalty, weight)[0], 2 * (norm - 1) * weight / norm)
    unit = weight.detach() / norm
    assert penalties.gradient_penalty(lambda x: (x * unit).sum(dim=(1, 2, 3)), real, fake, mix).item() < 1e-24


def test_gradient_penalty_is_taken_between_real_and_generated_images() -> None:
    """D(x) = |x|^2 / 2 has the slope |x|: at a mix of 1 that of the real image, at 0 that of the fake, at 1/2 that halfway."""
    real, fake = normal(3, 1, 2, 2, seed=17), normal(3, 1, 2, 2, seed=18)
    mix = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64).view(3, 1, 1, 1)
    places = torch.stack([real[0], fake[1], (real[2] + fake[2]) / 2])
    penalty = penalties.gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, mix)
    torch.testing.assert_close(penalty, (places.flatten(1).norm(dim=1) - 1).square().mean())


def test_gradient_penalty_agrees_with_finite_differences_through_a_network() -> None:
    """Its derivative by a weight is the slope that one measures."""
    real, fake, weight = normal(3, 1, 2, 2, seed=19), normal(3, 1, 2, 2, seed=20), normal(4, 4, seed=21)
    mix = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).view(3, 1, 1, 1)
    assert torch.autograd.gradcheck(
        lambda w: penalties.gradient_penalty(tanh_critic(w), real, fake, mix), (weight.requires_grad_(),)
    )


def test_gradient_penalty_of_a_flat_discriminator_can_be_differentiated() -> None:
    """Where D has no slope at all the penalty is 1 and its derivative a number."""
    weight = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    real, mix = normal(3, 1, 2, 2, seed=22), torch.full((3, 1, 1, 1), 0.5)
    penalty = penalties.gradient_penalty(tanh_critic(weight), real, -real, mix)
    assert penalty.item() == 1
    assert torch.autograd.grad(penalty, weight)[0].isfinite().all()
