"""Ways from one latent vector to another. Torch-free."""

import numpy as np
import numpy.typing as npt

CLOSE = 1e-6  # radians, between directions that count as the same or as opposite

Float64 = npt.NDArray[np.float64]


def slerp(
    z0: npt.NDArray[np.float32], z1: npt.NDArray[np.float32], t: float | npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Latents float32 [n, z_dim] on the way from z0 [z_dim] at t = 0 to z1 [z_dim] at t = 1, for t [n]; both ends are exact.

    Shoemake's spherical interpolation (1985, "Animating rotation with quaternion curves") as White uses it for latents (2016,
    arXiv:1609.04468, section 2.1): by the angle between the directions, with the vectors as long as they are. Normal vectors of
    many values lie close to a sphere; a straight line would cross its inside, which no generator was trained on. Between ends of
    one length the way stays on their sphere. Between the same direction twice, or where an end is zero, it is straight. Between
    opposite ones all great circles are as short: it takes a fixed one, its length changing evenly.
    """
    begin, end = z0.astype(np.float64), z1.astype(np.float64)
    t = np.atleast_1d(np.asarray(t, np.float64))[:, None]
    way = _way(begin, end, t)
    return np.where(t == 0, begin, np.where(t == 1, end, way)).astype(np.float32)


def _way(begin: Float64, end: Float64, t: Float64) -> Float64:
    straight: Float64 = (1 - t) * begin + t * end
    lengths = np.linalg.norm(begin), np.linalg.norm(end)
    if len(begin) == 1 or not all(lengths):
        return straight
    u, v = begin / lengths[0], end / lengths[1]
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))  # accurate also where a cosine is close to 1
    if angle < CLOSE:
        return straight
    if np.pi - angle < CLOSE:
        around: Float64 = np.cos(np.pi * t) * u + np.sin(np.pi * t) * _perpendicular(u)
        around *= (1 - t) * lengths[0] + t * lengths[1]
        return around
    way: Float64 = (np.sin((1 - t) * angle) * begin + np.sin(t * angle) * end) / np.sin(angle)
    return way


def _perpendicular(u: Float64) -> Float64:
    """A unit vector at right angles to the unit vector u [2 or more]: from the axis that is farthest from it."""
    axis = np.abs(u).argmin()
    across: Float64 = -u[axis] * u
    across[axis] += 1
    across /= np.linalg.norm(across)
    return across
