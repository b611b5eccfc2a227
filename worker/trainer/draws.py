"""Images of the generator that is being trained, and the latents and classes that a run is judged by, at each evaluation the same."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.config import TrainingConfig
from models.generator import to_uint8
from models.memory import is_out_of_memory
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

    def draw(first: int, n: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
        labels = evaluation_labels(config, data, first, n)
        z = normals(config.seed, np.arange(first, first + n), Purpose.EVALUATION, config.network.z_dim)
        return generate(G_ema, z, labels, engine.device, at_a_time, between), labels

    return draw


@torch.inference_mode()
def generate(
    G: nn.Module,
    z: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64] | None,
    device: torch.device,
    at_a_time: int,
    between: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.uint8]:
    """uint8 [n, H, W, C] of a generator in evaluation mode, so many at a time, or as few as there is memory for."""
    images, done = [], 0
    while done < len(z):
        between()
        part = slice(done, done + at_a_time)
        try:
            asked = None if labels is None else torch.from_numpy(labels[part]).to(device)
            images.append(to_uint8(G(torch.from_numpy(z[part]).to(device), asked)))
        except (RuntimeError, MemoryError) as error:
            if at_a_time == 1 or not is_out_of_memory(error):
                raise
            at_a_time = -(-at_a_time // 2)
        else:
            done += at_a_time
    return np.concatenate(images)


def evaluation_labels(config: TrainingConfig, data: Data, first: int, n: int) -> npt.NDArray[np.int64] | None:
    """int64 [n]: classes as often as in the data; None when the generator takes none."""
    if not config.network.conditional:
        return None
    known = data.labels[data.labels >= 0]
    bits = uniform_bits(config.seed, np.arange(first, first + n), Purpose.EVALUATION_CLASS, 1)[:, 0]
    chosen: npt.NDArray[np.int64] = known[(bits.astype(np.uint64) * np.uint64(len(known))) >> np.uint64(32)]
    return chosen
