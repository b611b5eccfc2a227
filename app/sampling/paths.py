"""Ways through latent space: from seed to seed, and from class to class."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.sampling.inputs import Latents
from models.interpolation import slerp


def length(stops: int, frames: int, *, loop: bool) -> int:
    """How many rows a path has that `walk` makes."""
    return stops * frames if loop else (stops - 1) * frames + 1


def walk(
    z: NDArray[np.float32], labels: NDArray[np.int64] | None, n_classes: int, frames: int, *, loop: bool
) -> Latents:
    """A path from each of z [stops, z_dim] to the next, in `frames` steps, with `loop` from the last to the first again.

    The stops are exact: their rows are z, and a class by itself. Between different classes of `labels` [stops] lie mixtures of the
    two, by their share of the way; where all are one class, rows have its index.
    """
    stops = list(range(len(z)))
    legs = list(pairwise([*stops, stops[0]] if loop else stops))
    share = np.arange(frames) / frames
    rows = [slerp(z[begin], z[end], share) for begin, end in legs]
    rows += [] if loop else [z[-1:]]
    if labels is None:
        return Latents(np.concatenate(rows))
    if (labels == labels[0]).all():
        return Latents(np.concatenate(rows), np.full(length(len(z), frames, loop=loop), labels[0]))
    pure = np.eye(n_classes, dtype=np.float32)[labels]
    part = share.astype(np.float32)[:, None]
    mixtures = [(1 - part) * pure[begin] + part * pure[end] for begin, end in legs]
    mixtures += [] if loop else [pure[-1:]]
    return Latents(np.concatenate(rows), np.concatenate(mixtures))
