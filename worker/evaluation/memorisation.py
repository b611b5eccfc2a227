"""Whether samples are copies: of training images, or of each other. All is judged by how real images lie among themselves."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from worker.evaluation.distances import SAME, nearest, nearest_other, neighbour
from worker.evaluation.metrics import NORMAL_95, Estimate

CLOSE = 0.05  # the share of real images that lie so near to another
TWIN = 0.01
FEWEST = round(1 / CLOSE)  # images that differ: of fewer, there is no such share


@dataclass(frozen=True)
class Calibration:
    """How far real images are from the nearest real image that differs, each left out in turn; float64 [n], never empty.

    An image that is left out is to the rest what a new image of the same kind would be, and costs no training data.
    """

    others: Tensor

    @property
    def close(self) -> Tensor:
        return self.others.quantile(CLOSE)

    @property
    def twin(self) -> Tensor:
        return self.others.quantile(TWIN)


def calibrate(real: Tensor, n: int, mirrored: Tensor | None = None) -> Calibration | None:
    """By the first n of real [m, d] against all of it, and against their mirror images [m, d]. None when all of it is the same."""
    others = nearest_other(real, n, mirrored)
    return Calibration(others) if len(others) else None


class Memorisation(NamedTuple):
    """`share` of the samples nearer to a training image than CLOSE of the real ones are to another, with its 95 % interval;
    `ratio` of the median distances to the nearest; int64 [n] and float64 [n]: which training image is nearest, and how near.
    """

    share: Estimate
    ratio: float
    which: Tensor
    distance: Tensor


def memorisation(fake: Tensor, real: Tensor, calibration: Calibration) -> Memorisation:
    """Of samples [n, d] among training images [m, d]. CLOSE is expected of new images of the same kind, 1 of copies."""
    distance, which = nearest(fake, real)
    close = float((distance < calibration.close).double().mean())
    # The threshold is itself an estimate from real images, which adds as much as a second sample of that size would; since
    # images that are nearest to each other have one distance between them, they count half.
    n, m = len(fake), len(calibration.others) / 2
    low, high = wilson(close, n * m / (n + m))
    ratio = float(distance.median() / calibration.others.median())
    return Memorisation(Estimate(close, low, high), ratio, which, distance)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of n trials by Wilson 1927 (doi:10.1080/01621459.1927.10502953)."""
    z2 = NORMAL_95**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    margin = float(np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2))
    return max(0.0, middle - margin), min(1.0, middle + margin)


def duplicates(fake_fake: Tensor, real_real: Tensor, calibration: Calibration) -> float | None:
    """The share of samples with a twin among the samples, beyond that of real images with one among as many: 0 if alike, 1 if collapsed.

    From squared distances within either set [n, n]. None when half of the real images have one.
    """
    limit = calibration.twin**2
    twins, expected = (float((neighbour(matrix, 1) < limit).double().mean()) for matrix in (fake_fake, real_real))
    return max(0.0, (twins - expected) / (1 - expected)) if expected < 0.5 else None


def spread(fake: Tensor, real: Tensor) -> float | None:
    """The root mean square distance between two samples [n, d] over that between two real images [m, d]; n, m > 1.

    None when all real images are the same.
    """
    of_fake, of_real = (x.double().var(0).sum() for x in (fake, real))
    differ = of_real > real.double().square().sum(1).mean() * SAME**2
    return float((of_fake / of_real).sqrt()) if differ else None


def spread_by_class(fake: Tensor, asked: Tensor, real: Tensor, labels: Tensor) -> float | None:
    """`spread` within each class, its mean weighted by the samples asked of it; classes with one image are left out.

    None when that leaves none.
    """
    total, weight = 0.0, 0
    for name in sorted(set(asked.tolist())):
        samples, images = fake[asked == name], real[labels == name]
        within = spread(samples, images) if min(len(samples), len(images)) > 1 else None
        if within is not None:
            total, weight = total + within * len(samples), weight + len(samples)
    return total / weight if weight else None
