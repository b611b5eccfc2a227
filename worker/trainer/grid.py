"""The fixed-seed picture of progress: the same latents at every stage of a run, a row for each class."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from models.config import DataSpec, TrainingConfig
from models.pictures import tile
from models.randomness import Purpose, normals
from worker.engine import Engine
from worker.trainer.draws import generate

COLUMNS = 8
MAX_ROWS = 32
MAX_SIDE = 2048  # pixels of the picture
LEAST_TILE = 32  # smaller images are enlarged, pixel by pixel, so that a person can read them
GAP = 2
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def grid_inputs(
    config: TrainingConfig, data: DataSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None, int]:
    """The latents [n, z_dim], the labels [n] (None when unconditional) and the columns of this config's grid.

    A conditional grid has a row a class and the same latents in each row; any other is a square of unlike latents.
    """
    columns = max(1, min(COLUMNS, MAX_SIDE // data.width))
    rows = max(1, min(MAX_ROWS, MAX_SIDE // data.height))
    if not config.network.conditional:
        rows = min(rows, COLUMNS)
        return normals(config.seed, np.arange(rows * columns), Purpose.GRID, config.network.z_dim), None, columns
    rows = min(rows, len(data.classes))
    z = normals(config.seed, np.arange(columns), Purpose.GRID, config.network.z_dim)
    return np.tile(z, (rows, 1)), np.repeat(np.arange(rows), columns), columns


def write_grid(path: Path, G_ema: nn.Module, config: TrainingConfig, data: DataSpec, engine: Engine) -> None:
    """Sample the grid from a generator in evaluation mode and write it as a PNG, whole or not at all."""
    z, labels, columns = grid_inputs(config, data)
    images = generate(G_ema, z, labels, engine.device, config.micro_batch or config.batch_size)
    picture = tile(images, columns, scale=max(1, LEAST_TILE // min(data.height, data.width)), gap=GAP)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(".writing")
    Image.fromarray(picture.squeeze(2) if data.channels == 1 else picture, MODES[data.channels]).save(writing, "PNG")
    writing.rename(path)
