"""Each metric against another implementation, and its interval against simulation."""

import time

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from tests.worker.evaluation.fidelity import fidelity
from worker.evaluation.distances import nearest, nearest_other, squared_distances
from worker.evaluation.metrics import (
    density_coverage,
    frechet_distance,
    kernel_shift,
    kid,
    mode_coverage,
    precision_recall,
    within,
)


def draw(n: int, d: int = 16, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def matrices(fake: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return squared_distances(fake, fake), squared_distances(real, real), squared_distances(real, fake)


def test_kid_is_scikit_learns_kernel_summed_up() -> None:
    """KID is the mean of the cubic kernel within each set, without the diagonal, less twice that between the sets."""
    fake, real = draw(150, shift=0.2).numpy(), draw(220, seed=1).numpy()
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, coef0=1) for a, b in ((fake, fake), (real, real), (fake, real)))
    off = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    assert kid(fake, real).value == pytest.approx(off[0] + off[1] - 2 * xy.mean(), rel=1e-9)
    single = kid(fake.astype(np.float32), real.astype(np.float32))
    assert single.value == pytest.approx(kid(fake, real).value, abs=1e-6)


def test_kid_fid_precision_and_recall_are_torch_fidelitys() -> None:
    """On the same features torch-fidelity gives the same KID, FID, precision and recall."""
    fake, real = draw(500, shift=0.3), draw(500, seed=1)
    options = {"kid_subsets": 1, "kid_subset_size": 500, "verbose": False}
    theirs = fidelity("metric_kid").kid_features_to_metric(fake, real, **options)
    assert kid(fake, real).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)

    metric_fid = fidelity("metric_fid")
    statistics = [metric_fid.fid_features_to_statistics(x) for x in (fake, real)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert frechet_distance(fake, real) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)

    theirs = fidelity("metric_prc").prc_features_to_metric(fake, real, verbose=False)
    assert precision_recall(*matrices(fake, real)) == pytest.approx((theirs["precision"], theirs["recall"]))


def test_fid_is_scipys() -> None:
    """FID with scipy's matrix root is the same number."""
    fake, real = draw(300, d=8, shift=0.5).numpy(), draw(400, d=8, seed=1).numpy()
    first, second = np.cov(fake.T), np.cov(real.T)
    expected = ((fake.mean(0) - real.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [2, 40])
def test_fid_is_finite_without_full_rank(n: int) -> None:
    """Fewer rows than features, all rows the same, one feature: FID is a real number, and 0 of a set against itself."""
    fake, same = draw(n, d=64), torch.ones(n, 64)
    for x, y in ((fake, draw(n, d=64, seed=1)), (fake, same), (same, same), (fake[:, :1], same[:, :1])):
        assert np.isfinite(frechet_distance(x, y))
        assert frechet_distance(x, y) >= 0
    assert frechet_distance(fake, fake) == pytest.approx(0, abs=1e-6)


def test_density_and_coverage_are_those_of_nearest_neighbours() -> None:
    """Density and coverage follow from the neighbours that scikit-learn finds."""
    fake, real = draw(300, shift=0.4).numpy(), draw(300, seed=1).numpy()
    radii = NearestNeighbors(n_neighbors=6).fit(real).kneighbors(real)[0][:, -1]
    inside = euclidean_distances(real, fake) < radii[:, None]
    expected = (inside.sum(0).mean() / 5, inside.any(1).mean())
    _, real_real, real_fake = matrices(torch.from_numpy(fake), torch.from_numpy(real))
    assert density_coverage(real_real, real_fake) == pytest.approx(expected)


def true_mmd2(shift: float, d: int) -> float:
    """Of the cubic kernel between N(shift, I) and N(0, I) in d dimensions, from the moments of the normal distribution."""
    m = d * shift**2
    return 3 * m**2 / d**2 + 3 * m / d + (m**3 + 6 * m**2 + 3 * m * d + 6 * m) / d**3


@pytest.mark.parametrize(("shift", "least"), [(0.0, 0.94), (0.1, 0.88)])
def test_kid_interval_holds_the_truth_about_as_often_as_it_says(shift: float, least: float) -> None:
    """Of 200 intervals at 95 %, nearly all hold the true MMD^2, and they are as wide as the estimates scatter."""
    truth = true_mmd2(shift, 16)
    estimates = [kid(draw(200, shift=shift, seed=2 * s), draw(200, seed=2 * s + 1)) for s in range(200)]
    held = np.mean([each.low <= truth <= each.high for each in estimates])
    errors = np.mean([each.high - each.value for each in estimates]) / 1.96
    assert held >= least
    assert 0.85 < errors / np.std([each.value for each in estimates]) < 1.3
    assert np.mean([each.value for each in estimates]) == pytest.approx(truth, abs=0.004)


def test_kid_of_2048_by_2048_takes_little_time() -> None:
    """With 128 float32 features of 2,048 rows each, KID takes well under 0.3 s of one core, neighbours aside."""
    fake, real = draw(2_048, 128).float(), draw(2_048, 128, seed=1).float()
    kept = within(real, kernel_shift(real))
    kid(fake, real, kept)
    start = time.thread_time()
    assert kid(fake, real, kept) == kid(fake, real)
    assert time.thread_time() - start < 0.3


def test_copies_have_no_distance() -> None:
    """Rows that are the same to float32 are at distance 0, and the nearest row is found with its exact distance."""
    real = draw(400, 64).float() + 3
    fake = torch.cat([real[50:60] * (1 + 1e-7), real[:5] + 0.01])
    distance, which = nearest(fake, real)
    assert which.tolist() == [*range(50, 60), *range(5)]
    assert distance[:10].tolist() == [0.0] * 10
    assert distance[10:].numpy() == pytest.approx(0.08, rel=1e-3)
    assert (squared_distances(fake[:10], real) == 0).sum() == 10


def test_nearest_other_leaves_repetitions_out() -> None:
    """Each different row counts once, and its distance is that to the nearest row that differs."""
    rows = torch.tensor([[1.0], [4.0], [1.0], [9.0], [4.0]])
    assert nearest_other(rows, 5).tolist() == [3.0, 3.0, 5.0]
    assert nearest_other(rows, 1).tolist() == [3.0]
    assert nearest_other(torch.ones(4, 2), 4).tolist() == []
    many = draw(700)
    apart = NearestNeighbors(n_neighbors=2).fit(many.numpy()).kneighbors(many.numpy())[0][:, 1]
    assert nearest_other(torch.cat([many, many]), 1_400).numpy() == pytest.approx(apart)


def test_mode_coverage_counts_modes_and_compares_shares() -> None:
    """Even samples of two modes of four are two modes and a reverse KL of log 2; a mode without data is infinitely wrong."""
    found, total, reverse_kl = mode_coverage(np.array([0, 1] * 50), [0.25] * 4)
    assert (found, total) == (2, 4)
    assert reverse_kl == pytest.approx(np.log(2))
    assert mode_coverage(torch.tensor([0, 1]), [0.5, 0.5, 0]) == (2, 2, 0.0)
    assert mode_coverage(np.array([2]), [0.5, 0.5, 0]).reverse_kl == np.inf
    for classes, shares in (([], [1.0]), ([1], [1.0]), ([0], [0.5])):
        with pytest.raises(ValueError, match="samples"):
            mode_coverage(np.array(classes, dtype=np.int64), shares)


def test_one_row_is_too_few() -> None:
    """KID and FID of a single row are refused rather than made up."""
    for metric in (kid, frechet_distance):
        with pytest.raises(ValueError, match="two rows"):
            metric(draw(1), draw(5))
