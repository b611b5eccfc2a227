"""Clusters of points: k-means, and k-means on where a graph of nearest neighbours puts them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from models.randomness import Purpose, normals, shuffled, uniform_bits

SEED = 0
MOST_FITTED = 20_000  # points that clusters are found among
ROUNDS = 20  # of Lloyd's
NEIGHBOURS = 10
SPARE = 50  # directions beyond those wanted, which come out the sooner for it
SWEEPS = 10  # of subspace iteration, each as many products
PRODUCTS = 5
PARTS = 20  # of each cluster, which the other points are compared with
MOST_PARTS = 2_000  # of all
AT_ONCE = 2**22  # distances that are looked at together
_STARTING = 2**32  # its place in the stream


def spectral_clusters(points: Tensor, k: int, most_fitted: int = MOST_FITTED) -> Tensor:
    """int64 [n], 0 to k - 1, of float32 [n, d]: by Ng, Jordan and Weiss 2001, on a graph of nearest neighbours.

    Clusters may have any shape, as long as the way from one of its points to the next is short. Of more than `most_fitted` points,
    the others are of the cluster whose nearest part is nearest. Points too few for a graph are clustered by k-means.
    """
    fitted = points[torch.from_numpy(drawn(len(points), most_fitted))]
    if len(fitted) < 2 * (k + SPARE):
        return k_means(points, k)
    start = one_hot(k_means(fitted, k), k).float()
    found = k_means(normalize(_leading_eigenvectors(_affinity(fitted), start)), k)
    if len(points) == len(fitted):
        return found
    each = max(1, min(PARTS, MOST_PARTS // k))
    parts = [_means(fitted[found == cluster], each) for cluster in range(k)]
    clusters = torch.arange(k).repeat_interleave(torch.tensor([len(part) for part in parts]))
    return clusters[_nearest(points, torch.cat(parts))]


def _affinity(points: Tensor) -> Tensor:
    """Sparse [n, n], of eigenvalues up to 1: D^-1/2 W D^-1/2, where W joins points to their nearest, and D sums its rows."""
    n, count = len(points), min(NEIGHBOURS, len(points) - 1)
    near = torch.empty(n, count + 1, dtype=torch.int64)
    for rows, distances in _distances(points, points):
        near[rows] = distances.topk(count + 1, largest=False).indices
    one = torch.arange(n).repeat_interleave(count + 1)
    other = near.flatten()
    one, other = one[one != other], other[one != other]
    both = torch.stack([torch.cat([one, other]), torch.cat([other, one])])
    scale = torch.bincount(both[0], minlength=n).float().rsqrt()
    weights = scale[both[0]] * scale[both[1]]
    return torch.sparse_coo_tensor(both, weights, (n, n), check_invariants=False).coalesce()


def _leading_eigenvectors(matrix: Tensor, start: Tensor) -> Tensor:
    """float32 [n, k]: about the space of those with the greatest eigenvalues, by subspace iteration (Golub and Van Loan, 8.2.4).

    From `start` [n, k], such as the clusters that k-means finds: what lies so far apart that the graph does not join it is told
    apart by these already, where random vectors would take very long to. It needs not be exact: clusters are no better where it is.
    """
    n, k = start.shape
    spare = torch.from_numpy(normals(SEED, _STARTING + np.arange(n), Purpose.DIVISION, SPARE))
    space = torch.cat([start, spare], dim=1)
    for _ in range(SWEEPS):
        for _ in range(PRODUCTS):
            space = (space + matrix @ space) / 2  # whose eigenvalues are from 0 to 1: no negative one comes first
        space = torch.linalg.qr(space).Q.contiguous()  # by rows, which the product reads faster
    vectors = torch.linalg.eigh(space.T @ (matrix @ space)).eigenvectors
    leading: Tensor = space @ vectors[:, -k:]
    return leading


def k_means(points: Tensor, k: int) -> Tensor:
    """int64 [n]: the nearest of k means of float32 [n, d]."""
    return _nearest(points, _means(points[torch.from_numpy(drawn(len(points), MOST_FITTED))], k))


def _means(points: Tensor, k: int) -> Tensor:
    """float32 [k, d], by Lloyd's rounds from k-means++ (Arthur and Vassilvitskii 2007); as many as there are points, if fewer."""
    k = min(k, len(points))
    if k == 0:
        return points
    means = _first_means(points, k)
    for _ in range(ROUNDS):
        nearest = _nearest(points, means)
        counts = torch.bincount(nearest, minlength=k)[:, None]
        sums = torch.zeros_like(means).index_add_(0, nearest, points)
        means = torch.where(counts > 0, sums / counts.clamp(min=1), means)
    return means


def _first_means(points: Tensor, k: int) -> Tensor:
    """Each next one is drawn by its squared distance to the nearest so far."""
    uniform = uniform_bits(SEED, np.arange(k), Purpose.DIVISION, 1)[:, 0] * 2.0**-32
    chosen = [int(uniform[0] * len(points))]
    distance = torch.full((len(points),), torch.inf)
    for share in uniform[1:]:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(dim=1))
        upto = distance.double().cumsum(0)
        chosen.append(min(int(torch.searchsorted(upto, upto[-1] * share, right=True)), len(points) - 1))
    return points[chosen]


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """int64 [n]: which of the others [m, d] is nearest."""
    found = torch.empty(len(points), dtype=torch.int64)
    for rows, distances in _distances(points, others):
        found[rows] = distances.argmin(dim=1)
    return found


def _distances(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and [some, m] until the next: squared, of each point to each of the others, less the point's own square."""
    lengths, size = others.square().sum(dim=1), max(1, AT_ONCE // len(others))
    held = torch.empty(min(size, len(points)), len(others))
    for first in range(0, len(points), size):
        some = points[first : first + size]
        yield slice(first, first + size), torch.addmm(lengths, some, others.T, alpha=-2, out=held[: len(some)])


def drawn(n: int, most: int) -> npt.NDArray[np.int64]:
    """int64 [at most `most`] of 0 .. n - 1, in order."""
    return np.sort(shuffled(SEED, 0, Purpose.DIVISION, n)[:most])
