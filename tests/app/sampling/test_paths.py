"""Ways from stop to stop."""

import numpy as np
import pytest

from app.sampling.paths import length, walk
from models.interpolation import slerp
from models.randomness import sample_latents

Z = sample_latents([3, 1, 4], 8)
LABELS = np.array([0, 2, 2])


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("labels", [None, LABELS, np.array([1, 1, 1])])
def test_every_stop_is_exact(labels: np.ndarray | None, frames: int, loop: bool) -> None:
    """In `frames` steps from each to the next: its own latents, and its class by itself; with a loop the last leads to the first."""
    path = walk(Z, labels, 3, frames, loop=loop)
    assert len(path) == length(3, frames, loop=loop) == (3 * frames if loop else 2 * frames + 1)
    assert np.array_equal(path.z[::frames], Z)
    assert path.z.dtype == np.float32
    if labels is None:
        assert path.labels is None
        return
    assert path.labels is not None
    stops = path.labels[::frames]
    assert np.array_equal(stops if stops.ndim == 1 else stops.argmax(axis=1), labels)
    assert stops.ndim == 1 or np.array_equal(stops, np.eye(3)[labels])


def test_between_stops_it_goes_along_the_sphere_and_mixes_classes_evenly() -> None:
    """As far in z as in the share of the classes; a leg within a class stays in it."""
    path = walk(Z, LABELS, 3, 4, loop=False)
    assert np.array_equal(path.z[:4], slerp(Z[0], Z[1], np.arange(4) / 4))
    assert path.labels is not None
    assert path.labels.dtype == np.float32
    assert path.labels[:5].tolist() == [[1, 0, 0], [0.75, 0, 0.25], [0.5, 0, 0.5], [0.25, 0, 0.75], [0, 0, 1]]
    assert path.labels[4:] == pytest.approx(np.eye(3)[[2] * 5])


def test_within_one_class_rows_have_its_index() -> None:
    """So that nothing is mixed where there is nothing to mix."""
    labels = walk(Z, np.array([2, 2, 2]), 3, 4, loop=True).labels
    assert labels is not None
    assert (labels.dtype, labels.tolist()) == (np.int64, [2] * 12)
