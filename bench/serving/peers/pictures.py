"""What every peer is given: the generator at the precision chosen for all, and a PNG encoder at level 1: Pillow's or, to compare the
servers alone, ours.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.formats.png import write
from models.generator import latents, load_generator, to_uint8

PRECISIONS = ("fp32", "fp32 channels_last", "bf16 channels_last")
SNAPSHOT, PRECISION, THREADS, ENCODER = "BENCH_SNAPSHOT", "BENCH_PRECISION", "BENCH_THREADS", "BENCH_ENCODER"


class Pictures:
    """The generator of a snapshot folder. One thread at a time may use it."""

    def __init__(self, snapshot: Path, precision: str) -> None:
        loaded = load_generator(snapshot)
        self.info = loaded.info
        self.dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        layout = torch.channels_last if precision.endswith("channels_last") else torch.contiguous_format
        self.network = loaded._network.to(dtype=self.dtype, memory_format=layout)  # noqa: SLF001 - peers serve it themselves

    @torch.inference_mode()
    def make(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 [n, H, W, 3]."""
        z = torch.from_numpy(latents(self.info, seeds)).to(self.dtype)
        return to_uint8(self.network(z))


def from_environment() -> Pictures:
    """As the bench told the server's process."""
    torch.set_num_threads(int(os.environ[THREADS]))
    return Pictures(Path(os.environ[SNAPSHOT]), os.environ[PRECISION])


def by_pillow(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def by_ours(picture: NDArray[np.uint8]) -> bytes:
    return write(picture[np.newaxis], [None])[0]


ENCODERS = {"pillow": by_pillow, "ours": by_ours}
png = ENCODERS[os.environ.get(ENCODER, "pillow")]
