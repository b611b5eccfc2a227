"""The way between two latent vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.interpolation import slerp
from models.randomness import sample_latents

STEPS = np.linspace(0, 1, 21)
SEEDS = st.integers(0, 2**63 - 1)


def lengths(z: np.ndarray) -> np.ndarray:
    return np.linalg.norm(z.astype(np.float64), axis=1)


@given(first=SEEDS, second=SEEDS, z_dim=st.integers(1, 64))
def test_both_ends_are_exact(first: int, second: int, z_dim: int) -> None:
    """At 0 and 1 the way is at the very latents, bit for bit."""
    z0, z1 = sample_latents([first, second], z_dim)
    way = slerp(z0, z1, np.array([0.0, 0.5, 1.0]))
    assert (way.dtype, way.shape) == (np.float32, (3, z_dim))
    assert np.array_equal(way[[0, 2]], [z0, z1])
    assert np.isfinite(way).all()


@given(first=SEEDS, second=SEEDS)
def test_it_stays_on_the_sphere(first: int, second: int) -> None:
    """Between ends of one length every point has it, and equal steps are equal angles; a straight line would be far inside."""
    z0, z1 = sample_latents([first, second + 1 if first == second else second], 32)
    z1 = z1 * np.float32(np.linalg.norm(z0) / np.linalg.norm(z1))
    way = slerp(z0, z1, STEPS).astype(np.float64)
    assert lengths(way) == pytest.approx(np.full(21, np.linalg.norm(z0)), rel=1e-5)
    cosines = (way[1:] * way[:-1]).sum(axis=1) / (lengths(way[1:]) * lengths(way[:-1]))
    angles = np.arccos(np.clip(cosines, -1, 1))
    assert angles == pytest.approx(np.full(20, angles.mean()), abs=1e-4)


def test_it_is_shoemakes_formula() -> None:
    """A quarter of a circle between axes of different lengths, by hand: sin((1 - t) angle) z0 + sin(t angle) z1."""
    z0, z1 = np.array([2, 0], np.float32), np.array([0, 1], np.float32)
    angle = np.pi / 2 * STEPS
    assert slerp(z0, z1, STEPS) == pytest.approx(np.stack([2 * np.cos(angle), np.sin(angle)], axis=1), abs=1e-6)


def test_there_and_back_is_one_way() -> None:
    """From the other end it has the same points."""
    z0, z1 = sample_latents([1, 2], 16)
    assert slerp(z0, z1, STEPS) == pytest.approx(slerp(z1, z0, 1 - STEPS), abs=1e-6)


@pytest.mark.parametrize(
    ("z0", "z1"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [2, 4, 6]),
        ([0, 0, 0], [1, 2, 3]),
        ([1, 2, 3], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
        ([1], [-1]),
    ],
)
def test_where_there_is_no_angle_it_is_straight(z0: list[float], z1: list[float]) -> None:
    """One direction twice, zero at an end, or a single value."""
    begin, end = np.array(z0, np.float32), np.array(z1, np.float32)
    assert slerp(begin, end, STEPS) == pytest.approx((1 - STEPS)[:, None] * begin + STEPS[:, None] * end, abs=1e-6)


@pytest.mark.parametrize("z0", [[1, 2, 3], [1, 0], [0, -5, 0, 0], [1, 1, 1, 1]])
def test_between_opposite_ends_it_goes_around(z0: list[float]) -> None:
    """Not through the middle, where nothing is, and always the same way."""
    begin = np.array(z0, np.float32)
    way = slerp(begin, -2 * begin, STEPS)
    assert lengths(way) == pytest.approx(np.linalg.norm(begin) * (1 + STEPS), rel=1e-5)
    assert np.array_equal(way, slerp(begin, -2 * begin, STEPS))


def test_close_to_a_border_between_cases_it_does_not_jump() -> None:
    """Directions that hardly differ, or are almost opposite, give finite points of the right lengths."""
    for tiny in (1e-3, 1e-5, 1e-7, 1e-9):
        for z1 in ([1, tiny, 0], [-1, tiny, 0]):
            way = slerp(np.array([1, 0, 0], np.float32), np.array(z1, np.float32), STEPS)
            assert lengths(way) == pytest.approx(np.ones(21), rel=1e-3)
