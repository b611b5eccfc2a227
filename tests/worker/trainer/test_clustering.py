"""Clusters of points, by their means and along a graph of nearest neighbours."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from worker.trainer.clustering import k_means, spectral_clusters


def rings() -> Tensor:
    """Two rings around one middle, 200 points each, which no straight line tells apart."""
    angle = torch.linspace(0, 2 * math.pi, 201)[:-1]
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.cat([circle, 3 * circle])


def purity(found: Tensor, labels: np.ndarray) -> float:
    """The share of points that are of the most frequent label of their cluster."""
    return sum(np.bincount(labels[found == k]).max() for k in found.unique().tolist()) / len(labels)


def test_k_means_finds_what_lies_apart() -> None:
    """Four clouds, each of them one cluster, in any order of the points."""
    corners = torch.tensor([[0.0, 0], [9, 0], [0, 9], [9, 9]]).repeat(50, 1)
    points = corners + torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    found = k_means(points, 4).view(50, 4)
    assert (found == found[0]).all()
    assert sorted(found[0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("cluster", [k_means, spectral_clusters])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_points_that_are_all_alike_are_no_fault(cluster, n: int) -> None:
    """Nor are fewer of them than clusters."""
    assert set(cluster(torch.ones(n, 3), 4).tolist()) <= {0, 1, 2, 3}


def test_clusters_may_have_any_shape() -> None:
    """Each ring is one cluster, where means would cut both in half."""
    found = spectral_clusters(rings(), 2)
    assert [set(ring.tolist()) for ring in found.split(200)] in ([{0}, {1}], [{1}, {0}])
    assert purity(k_means(rings(), 2), np.repeat([0, 1], 200)) < 0.8


def test_points_that_it_was_not_fitted_to_are_of_the_nearest_part() -> None:
    """Each cluster is in parts, because it may have any shape."""
    assert purity(spectral_clusters(rings(), 2, most_fitted=150), np.repeat([0, 1], 200)) == 1


def test_digits_are_told_apart_as_by_scikit_learn() -> None:
    """On the same kind of graph, better than by means."""
    digits = load_digits()
    points = torch.from_numpy(digits.data).float()
    found = spectral_clusters(points, 10)
    peer = SpectralClustering(10, affinity="nearest_neighbors", n_neighbors=10, random_state=0).fit_predict(digits.data)
    ours, theirs, plain = (
        adjusted_rand_score(digits.target, clusters) for clusters in (found, peer, k_means(points, 10))
    )
    assert ours > theirs - 0.03
    assert ours > plain + 0.05


def test_clusters_are_the_same_every_time() -> None:
    """Nothing is left to chance."""
    points = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spectral_clusters(points, 7), spectral_clusters(points, 7))
