"""Many samples in one picture."""

import numpy as np
import pytest

from models.pictures import GAP_GRAY, tile


def test_tile_places_row_by_row_and_leaves_the_rest_black() -> None:
    """Five samples in three columns: two rows, the sixth place empty."""
    images = np.stack([np.full((2, 3, 1), value, np.uint8) for value in (10, 20, 30, 40, 50)])
    grid = tile(images, 3)
    assert grid.shape == (4, 9, 1)
    assert grid[::2, ::3, 0].tolist() == [[10, 20, 30], [40, 50, 0]]


def test_tile_repeats_pixels_and_needs_no_more_columns_than_samples() -> None:
    """An integer scale enlarges without blur; columns beyond the number of samples are not drawn."""
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    grid = tile(image[None], 8, scale=4)
    assert grid.shape == (36, 52, 3)
    assert np.array_equal(grid[::4, ::4], image)
    assert np.array_equal(grid[3::4, 3::4], image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gaps_stand_between_samples_and_nowhere_else(channels: int) -> None:
    """Lines of gray part the samples, opaque where there is alpha; the picture ends with a sample, not with a line."""
    grid = tile(np.full((4, 2, 2, channels), 200, np.uint8), 2, gap=1)
    assert grid.shape == (5, 5, channels)
    assert (grid[2, :, 0] == GAP_GRAY).all()
    assert (grid[:, 2, 0] == GAP_GRAY).all()
    assert (np.delete(np.delete(grid, 2, 0), 2, 1) == 200).all()
    assert channels != 4 or (grid[2, :, 3] == 255).all()
