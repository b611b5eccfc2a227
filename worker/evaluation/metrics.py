"""Distances between two sets of features, and how much of one lies near the other. Pure functions, deterministic.

`fake` and `real` are features, float32 or float64 [n, d] and [m, d]. What needs neighbours takes the distances within and between
them, squared or not, [n, n], [m, m] and [m, n].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.evaluation.distances import Array, neighbour

LEAST_FOR_FID = 2_048  # below it, the bias of an estimate from so few is as large as what it estimates
NORMAL_95 = 1.959964  # the normal distribution's 97.5 % quantile
_ROWS = 64  # of a kernel matrix at a time: they stay in the processor's cache


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class KernelSums:
    """Of a kernel matrix: the means of its rows [n] and columns [m], and of its squares, in float64."""

    rows: Tensor
    columns: Tensor
    square: Tensor

    def interaction(self) -> Tensor:
        """The variance of k(x, y) that neither x nor y alone explains: that of Hoeffding's second-order term."""
        alone = self.rows.var(correction=0) + self.columns.var(correction=0)
        return (self.square - self.rows.mean() ** 2 - alone).clamp(min=0)


def within(x: Array, shift: float) -> KernelSums:
    """Of the kernel between different rows of x [n, d], n > 1."""
    x = torch.as_tensor(x)
    return _sums(x, x, shift, pairs_of_one=True)


def between(x: Array, y: Array, shift: float) -> KernelSums:
    """Of the kernel between the rows of x [n, d] and those of y [m, d]."""
    return _sums(torch.as_tensor(x), torch.as_tensor(y), shift, pairs_of_one=False)


def kernel_shift(real: Array) -> float:
    """What is taken off the kernel wherever it is summed up, so that float32 does: about its mean. It changes no MMD."""
    return float((torch.as_tensor(real).mean(0).square().mean() + 1) ** 3)


def _sums(x: Tensor, y: Tensor, shift: float, *, pairs_of_one: bool) -> KernelSums:
    """Of (x_i . y_j / d + 1)^3 - shift, computed in the precision of x."""
    one = x.new_ones(())
    rows, columns, square = [], x.new_zeros(len(y), dtype=torch.float64), x.new_zeros((), dtype=torch.float64)
    for first in range(0, len(x), _ROWS):
        base = torch.addmm(one, x[first : first + _ROWS], y.T, alpha=1 / x.shape[1])
        kernel = base.square().mul_(base).sub_(shift)
        if pairs_of_one:
            kernel.diagonal(first).zero_()
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
        square += kernel.square_().sum()
    n, m = len(x) - pairs_of_one, len(y) - pairs_of_one
    return KernelSums(torch.cat(rows).double() / m, columns / n, square / (len(x) * m))


def kid(fake: Array, real: Array, of_real: KernelSums | None = None) -> Estimate:
    """Kernel inception distance (arXiv:1801.01401, section 4): the unbiased MMD^2 of all rows, and a normal 95 % interval.

    The variance is that of a U-statistic of two samples, to second order: the first order (arXiv:1611.04488, eq. 5) vanishes where
    the distributions agree. What the rows contribute varies by both and counts the second order twice, so it is taken off once. `of_real` is `within(real, kernel_shift(real))` where it is kept. Raises ValueError unless both have two rows.
    """
    n, m = len(fake), len(real)
    if min(n, m) < 2:
        raise ValueError("KID needs two rows on either side")
    shift = kernel_shift(real)
    xx, xy, yy = within(fake, shift), between(fake, real, shift), of_real or within(real, shift)
    of_fakes, of_reals = xx.rows - xy.rows, yy.rows - xy.columns
    value = float(of_fakes.mean() + of_reals.mean())
    contributions = 4 * of_fakes.var() / n + 4 * of_reals.var() / m
    second = 2 * xx.interaction() / n**2 + 2 * yy.interaction() / m**2 + 4 * xy.interaction() / (n * m)
    margin = NORMAL_95 * float(torch.maximum(contributions - second, second).sqrt())
    return Estimate(value, value - margin, value + margin)


def frechet_distance(fake: Array, real: Array) -> float:
    """FID (arXiv:1706.08500, eq. 6), never below 0: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2), a product of symmetric roots: real and finite
    whatever the rank. Biased upward by about 1/n + 1/m; see LEAST_FOR_FID. Raises ValueError for fewer than two rows.
    """
    if min(len(fake), len(real)) < 2:
        raise ValueError("FID needs two rows on either side")
    fake, real = torch.as_tensor(fake).double(), torch.as_tensor(real).double()
    apart = (fake.mean(0) - real.mean(0)).square().sum()
    first, second = (torch.cov(x.T).reshape(x.shape[1], -1) for x in (fake, real))
    shared = torch.linalg.matrix_norm(_root(first) @ _root(second), "nuc")
    return max(0.0, float(apart + first.trace() + second.trace() - 2 * shared))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def precision_recall(fake_fake: Tensor, real_real: Tensor, real_fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (arXiv:1904.06991, eq. 1 and 2).

    The share of the fake that lies within the k-th neighbour's distance of some real one, and the reverse.
    """
    precision = (real_fake <= neighbour(real_real, k)[:, None]).any(0)
    recall = (real_fake <= neighbour(fake_fake, k)).any(1)
    return float(precision.double().mean()), float(recall.double().mean())


def density_coverage(real_real: Tensor, real_fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage (arXiv:2002.09797, eq. 4 and 5).

    How many real neighbourhoods a fake one lies in, over k (1 where the sets are alike, more where it lies in the thick of
    them); and the share of the real neighbourhoods that hold a fake one (1 - 2^-k where the sets are alike and as large).
    """
    inside = real_fake <= neighbour(real_real, k)[:, None]
    return float(inside.double().sum(0).mean() / k), float(inside.any(1).double().mean())


class Modes(NamedTuple):
    """Of `total` modes, `found` have a sample; `reverse_kl` is KL(samples || data) in nats."""

    found: int
    total: int
    reverse_kl: float


def mode_coverage(classes: Array, shares: Sequence[float]) -> Modes:
    """How samples of the modes `classes` (int [n]) spread over modes that have these shares of the data.

    As in stacked MNIST (arXiv:1611.02163, section 3.3.2). A sample of a mode without a share makes the divergence infinite.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    counts = np.bincount(np.asarray(classes), minlength=len(wanted))
    if not len(classes) or len(counts) > len(wanted) or not np.isclose(wanted.sum(), 1):
        raise ValueError("there must be samples, of modes that have a share, and the shares must sum to 1")
    found = counts > 0
    got = counts[found] / counts.sum()
    with np.errstate(divide="ignore"):
        return Modes(int(found.sum()), int((wanted > 0).sum()), float((got * np.log(got / wanted[found])).sum()))
