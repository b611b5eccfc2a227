"""Copies of training images, and copies of one sample, are told from new images of the same kind."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from worker.evaluation.distances import squared_distances
from worker.evaluation.memorisation import calibrate, duplicates, memorisation, spread, spread_by_class, wilson


def draw(n: int, seed: int, d: int = 6) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def twins(fake: torch.Tensor, real: torch.Tensor) -> float | None:
    calibration = calibrate(real, len(real))
    assert calibration is not None
    return duplicates(squared_distances(fake, fake), squared_distances(real, real), calibration)


def test_copies_are_memorised_and_new_images_are_not() -> None:
    """Copies of training images give 1, blurred by little as well; new ones of the same kind about 0.05; others less."""
    real = draw(2_000, 0)
    calibration = calibrate(real, 2_000)
    assert calibration is not None
    copies = memorisation(real[:500] + 1e-3, real, calibration)
    assert copies.share.value == 1
    assert copies.ratio < 0.01
    assert copies.which.tolist() == list(range(500))
    fresh = memorisation(draw(2_000, 1), real, calibration)
    assert fresh.share.low < 0.05 < fresh.share.high
    assert fresh.share.value == pytest.approx(0.05, abs=0.02)
    assert fresh.ratio == pytest.approx(1, abs=0.05)
    assert memorisation(draw(500, 2) + 5, real, calibration).share.value == 0


def test_mirror_images_of_training_images_are_copies() -> None:
    """Where training saw them; new images are still about as near as a real one is to another, or to the mirror image of another."""
    sign = torch.tensor([-1.0, 1, 1, 1, 1, 1])
    real = draw(2_000, 0)
    calibration = calibrate(real, 2_000, real * sign)
    assert calibration is not None
    seen = torch.cat([real, real * sign])
    copies = memorisation(real[:500] * sign, seen, calibration)
    assert copies.share.value == 1
    assert copies.which.tolist() == list(range(2_000, 2_500))
    assert memorisation(draw(2_000, 1), seen, calibration).share.value == pytest.approx(0.05, abs=0.02)


def test_an_image_is_no_copy_of_its_own_mirror_image() -> None:
    """Of images that equal theirs the calibration is what it is without them."""
    real = draw(300, 0)
    without, beside = calibrate(real, 300), calibrate(real, 300, real)
    assert without is not None
    assert beside is not None
    assert torch.equal(without.others, beside.others)


def test_interval_holds_what_new_images_give() -> None:
    """Over forty pairs of sets of one kind, the interval holds 0.05 nearly always: the threshold's own error is in it."""
    held = 0
    for seed in range(40):
        real, fake = draw(400, 2 * seed), draw(400, 2 * seed + 1)
        calibration = calibrate(real, 400)
        assert calibration is not None
        share = memorisation(fake, real, calibration).share
        held += share.low <= 0.05 <= share.high
    assert held >= 36


def test_data_that_repeats_itself_still_tells_copies() -> None:
    """Where each training image is there three times, copies give 1 and new images about 0.05, as without repetitions."""
    real = draw(600, 0).repeat(3, 1)
    calibration = calibrate(real, len(real))
    assert calibration is not None
    assert len(calibration.others) == 600
    assert memorisation(real[:100], real, calibration).share.value == 1
    assert memorisation(draw(600, 1), real, calibration).share.value == pytest.approx(0.05, abs=0.03)


def test_identical_images_have_no_calibration() -> None:
    """Nothing says what a copy is when all images are the same."""
    assert calibrate(torch.ones(50, 4), 50) is None
    assert calibrate(torch.ones(1, 4), 1) is None


@pytest.mark.parametrize(("share", "n"), [(0.0, 50), (0.05, 200), (1.0, 10)])
def test_wilson_is_scipys(share: float, n: int) -> None:
    """The interval of a share is Wilson's as scipy computes it."""
    expected = binomtest(round(share * n), n).proportion_ci(method="wilson")
    assert wilson(share, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_duplicates_rise_from_none_to_all() -> None:
    """Samples like real images give about 0, half of them collapsed about a half, all of them 1."""
    real, fake = draw(1_000, 0), draw(1_000, 1)
    assert twins(fake, real) == pytest.approx(0, abs=0.02)
    fake[:500] = fake[0] + 1e-4 * draw(500, 3)
    assert twins(fake, real) == pytest.approx(0.5, abs=0.03)
    assert twins(fake[:1].repeat(1_000, 1), real) == 1


def test_duplicates_count_beyond_those_of_the_data() -> None:
    """Where a third of the real images have a twin, samples with as many give about 0; where most have one, there is no answer."""
    real, fake = draw(900, 0), draw(900, 1)
    real[:150], fake[:150] = real[150:300], fake[150:300]
    assert twins(fake, real) == pytest.approx(0, abs=0.03)
    assert twins(real[:1].repeat(900, 1), real) == 1
    assert twins(fake, real[:300].repeat(3, 1)) is None


def test_spread_is_the_ratio_of_pairwise_distances() -> None:
    """Spread is the root mean square distance between two samples over that between two real images."""
    fake, real = 0.5 * draw(200, 0), draw(300, 1)
    apart = [squared_distances(x, x).sum() / (len(x) * (len(x) - 1)) for x in (fake, real)]
    assert spread(fake, real) == pytest.approx(float((apart[0] / apart[1]).sqrt()), rel=1e-5)
    assert spread(fake[:1].repeat(9, 1), real) == pytest.approx(0, abs=1e-6)
    assert spread(fake, torch.full((9, 6), 0.3)) is None


def test_spread_by_class_sees_a_collapse_within_classes() -> None:
    """One picture a class has no spread within classes, however far these are apart; classes of one image are left out."""
    labels = torch.arange(90) % 3
    real = draw(90, 0) + 10 * labels[:, None]
    assert spread_by_class(real[:3].repeat(30, 1), labels, real, labels) == pytest.approx(0, abs=1e-6)
    assert spread_by_class(draw(90, 1) + 10 * labels[:, None], labels, real, labels) == pytest.approx(1, abs=0.15)
    alone = torch.arange(90)
    assert spread_by_class(real, labels, real, alone) is None
    assert np.isfinite(spread_by_class(real, alone % 2, real, labels) or np.nan)
