"""Losses against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models import catalog

REAL = torch.tensor([-3.0, -0.5, 0.0, 2.0, 60.0], dtype=torch.float64)
FAKE = torch.tensor([4.0, 0.25, 0.0, -1.0, -60.0], dtype=torch.float64)
N = len(REAL)
NAMES = ["hinge", "least_squares", "minimax", "non_saturating", "relativistic", "wasserstein"]


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


def generator_slope(name: str) -> Tensor:
    """The gradient of G's loss at FAKE, which sees the real logits only where the loss is paired."""
    loss = catalog.losses(name)
    return gradient(lambda t: loss.generator_loss(REAL if loss.PAIRED else None, t), FAKE)


def discriminator_slopes(name: str) -> tuple[Tensor, Tensor]:
    """The gradients of D's loss by the real and by the generated logits."""
    loss = catalog.losses(name).discriminator_loss
    return gradient(lambda t: loss(t, FAKE), REAL), gradient(lambda t: loss(REAL, t), FAKE)


def test_catalog_has_these_losses_each_with_a_summary() -> None:
    """A loss is found by its file, and its summary is one sentence."""
    assert list(catalog.LOSSES) == NAMES
    assert all(summary.endswith(".") for summary in catalog.LOSSES.values())


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_discriminator_ascends_the_log_likelihood(name: str) -> None:
    """The loss is -E log D(x) - E log(1 - D(G(z))), and its gradients are those of the sigmoid."""
    loss = catalog.losses(name).discriminator_loss
    assert loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))
    by_real, by_fake = discriminator_slopes(name)
    torch.testing.assert_close(by_real, -(1 - REAL.sigmoid()) / N)
    torch.testing.assert_close(by_fake, FAKE.sigmoid() / N)


def test_minimax_generator_descends_log_one_minus_d() -> None:
    """Its gradient is -D(G(z)) / n, which vanishes where D is sure of a fake."""
    slope = generator_slope("minimax")
    torch.testing.assert_close(slope, -FAKE.sigmoid() / N)
    assert slope[-1].abs() < 1e-20


def test_non_saturating_generator_descends_minus_log_d() -> None:
    """Its gradient is -(1 - D(G(z))) / n, which is full where D is sure of a fake."""
    slope = generator_slope("non_saturating")
    torch.testing.assert_close(slope, -(1 - FAKE.sigmoid()) / N)
    assert slope[-1].item() == pytest.approx(-1 / N)


def test_hinge_leaves_logits_beyond_the_margin_alone() -> None:
    """D's loss is E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), and G raises every logit alike."""
    value = catalog.losses("hinge").discriminator_loss(REAL, FAKE).item()
    assert value == pytest.approx((4 + 1.5 + 1) / N + (5 + 1.25 + 1) / N)
    by_real, by_fake = discriminator_slopes("hinge")
    torch.testing.assert_close(by_real, -(REAL < 1).double() / N)
    torch.testing.assert_close(by_fake, (FAKE > -1).double() / N)
    torch.testing.assert_close(generator_slope("hinge"), torch.full_like(FAKE, -1 / N))


def test_least_squares_has_the_targets_one_and_zero() -> None:
    """Half the mean square from 1 for real and from 0 for generated images; G aims at 1."""
    loss = catalog.losses("least_squares")
    assert loss.discriminator_loss(torch.ones(3), torch.zeros(3)).item() == 0
    assert loss.discriminator_loss(torch.tensor([3.0]), torch.tensor([-2.0])).item() == 2 + 2
    assert loss.generator_loss(None, torch.tensor([-3.0])).item() == 8
    by_real, by_fake = discriminator_slopes("least_squares")
    torch.testing.assert_close(by_real, (REAL - 1) / N)
    torch.testing.assert_close(by_fake, FAKE / N)
    torch.testing.assert_close(generator_slope("least_squares"), (FAKE - 1) / N)


def test_wasserstein_is_the_difference_of_the_means() -> None:
    """D widens E D(x) - E D(G(z)), and G raises E D(G(z)), with slopes that do not depend on the logits."""
    loss = catalog.losses("wasserstein")
    assert loss.discriminator_loss(REAL, FAKE).item() == pytest.approx((FAKE.mean() - REAL.mean()).item())
    assert loss.generator_loss(None, FAKE).item() == pytest.approx(-FAKE.mean().item())
    by_real, by_fake = discriminator_slopes("wasserstein")
    torch.testing.assert_close(by_real, torch.full_like(REAL, -1 / N))
    torch.testing.assert_close(by_fake, torch.full_like(FAKE, 1 / N))
    torch.testing.assert_close(generator_slope("wasserstein"), torch.full_like(FAKE, -1 / N))


def test_relativistic_judges_each_fake_beside_its_real() -> None:
    """With d = D(x) - D(G(z)), D minimises E softplus(-d) and G E softplus(d): a mean over pairs, not over all combinations."""
    loss, d = catalog.losses("relativistic"), REAL - FAKE
    torch.testing.assert_close(loss.discriminator_loss(REAL, FAKE), (1 + (-d).exp()).log().mean())
    torch.testing.assert_close(
        loss.generator_loss(REAL[:4], FAKE[:4]), (1 + d[:4].exp()).log().mean()
    )  # without the pair whose exp(d) has no room for a 1
    by_real, by_fake = discriminator_slopes("relativistic")
    torch.testing.assert_close(by_real, -(1 - d.sigmoid()) / N)
    torch.testing.assert_close(by_fake, (1 - d.sigmoid()) / N)
    torch.testing.assert_close(generator_slope("relativistic"), -d.sigmoid() / N)


@pytest.mark.parametrize("level", [-7.0, 0.5, 1000.0])
def test_relativistic_loss_does_not_see_the_level_of_the_discriminator(level: float) -> None:
    """A number added to all logits changes neither loss."""
    loss = catalog.losses("relativistic")
    for function in (loss.discriminator_loss, loss.generator_loss):
        torch.testing.assert_close(function(REAL + level, FAKE + level), function(REAL, FAKE))


@pytest.mark.parametrize("name", NAMES)
def test_only_a_paired_loss_reads_the_real_logits_in_the_generators_turn(name: str) -> None:
    """PAIRED says whether G's loss depends on them; where it does not, None is as good."""
    loss = catalog.losses(name)
    real = REAL.clone().requires_grad_()
    value = loss.generator_loss(real, FAKE.clone().requires_grad_())
    (slope,) = torch.autograd.grad(value, real, allow_unused=True)
    assert (slope is not None) is loss.PAIRED
    assert loss.PAIRED or torch.equal(loss.generator_loss(None, FAKE), value)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_scalars_at_extreme_logits(name: str) -> None:
    """No loss overflows where a sigmoid would round to 0 or 1."""
    loss = catalog.losses(name)
    real, fake = 1e4 * REAL.float(), 1e4 * FAKE.float()
    for value in (loss.discriminator_loss(real, fake), loss.generator_loss(real, fake)):
        assert value.shape == ()
        assert value.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_generator_and_discriminator_pull_apart(name: str) -> None:
    """Where D wants a fake's logit lower, G wants it higher; only least squares has D stop in between, at 0 and not at 1."""
    by_fake, by_generator = discriminator_slopes(name)[1], generator_slope(name)
    between = (FAKE <= 0) | (FAKE >= 1) if name == "least_squares" else torch.zeros_like(FAKE, dtype=torch.bool)
    assert (by_fake * by_generator <= 0)[~between].all()


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_falls_when_its_player_wins(name: str) -> None:
    """From a draw at 1/2, a step of all logits the right way lowers D's loss, and of the fake ones up lowers G's."""
    loss = catalog.losses(name)
    draw, step = torch.full((4,), 0.5, dtype=torch.float64), 0.1
    assert loss.discriminator_loss(draw + step, draw - step) < loss.discriminator_loss(draw, draw)
    assert loss.generator_loss(draw, draw + step) < loss.generator_loss(draw, draw)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_the_level_is_where_a_discriminator_that_cannot_tell_ends(name: str, shift: float) -> None:
    """There D's loss is least for one constant logit; a loss without a level does not mind by how much all logits are shifted."""
    loss = catalog.losses(name)
    if loss.LEVEL is None:
        shifted = loss.discriminator_loss(REAL + shift, FAKE + shift)
        assert shifted == pytest.approx(loss.discriminator_loss(REAL, FAKE).item())
        return
    constant = torch.full((1,), loss.LEVEL + shift, dtype=torch.float64)
    slope = gradient(lambda t: loss.discriminator_loss(t, t), constant).item()
    assert slope == pytest.approx(0) if shift == 0 else slope * shift > 0
