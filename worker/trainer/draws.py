"""The samples that a run is judged by: the same latents and classes at each evaluation."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.config import TrainingConfig
from models.generator import to_uint8
from models.randomness import Purpose, normals, uniform_bits
from worker.data.prepared import Data
from worker.engine import Engine
from worker.evaluation.samples import Draw

LEAST_AT_A_TIME, MOST_AT_A_TIME = 32, 128


def evaluation_draw(
    G_ema: nn.Module, config: TrainingConfig, data: Data, engine: Engine, between: Callable[[], None]
) -> Draw:
    """A function (first, n) to uint8 [n, H, W, C] and int64 [n] (None when unconditional), in full precision, as they are served.

    `between` is called before each part, and what it raises ends the drawing.
    """
    at_a_time = min(MOST_AT_A_TIME, max(LEAST_AT_A_TIME, config.micro_batch or config.batch_size))

    @torch.inference_mode()
    def draw(first: int, n: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
        labels = evaluation_labels(config, data, first, n)
        z = normals(config.seed, np.arange(first, first + n), Purpose.EVALUATION, config.network.z_dim)
        images = []
        for start in range(0, n, at_a_time):
            between()
            part = slice(start, start + at_a_time)
            asked = None if labels is None else torch.from_numpy(labels[part]).to(engine.device)
            images.append(to_uint8(G_ema(torch.from_numpy(z[part]).to(engine.device), asked)))
        return np.concatenate(images), labels

    return draw


def evaluation_labels(config: TrainingConfig, data: Data, first: int, n: int) -> npt.NDArray[np.int64] | None:
    """int64 [n]: classes as often as in the data; None when the generator takes none."""
    if not config.network.conditional:
        return None
    known = data.labels[data.labels >= 0]
    bits = uniform_bits(config.seed, np.arange(first, first + n), Purpose.EVALUATION_CLASS, 1)[:, 0]
    chosen: npt.NDArray[np.int64] = known[(bits.astype(np.uint64) * np.uint64(len(known))) >> np.uint64(32)]
    return chosen
