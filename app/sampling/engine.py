"""Where app reaches torch, and only when a sample is first asked for: nothing here imports it at import time."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import Unavailable
from app.sampling.loaded import Loaded
from app.sampling.shapes import verify
from models.manifest import ModelFileError


def start_thread(threads: int) -> None:
    """To be called first by every thread that generates or loads: results hold for a fixed number of CPU threads."""
    import torch

    torch.set_num_threads(threads)


@lru_cache
def fingerprint(threads: int) -> str:
    """A digest of all that decides the bits beside the model and the request: device, instruction set, threads, libraries."""
    import torch

    parts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        # Kernels are chosen by instruction set, and blocks of a sum by the size of the caches.
        "cpu": {name: value for name, value in torch.cpu.get_capabilities().items() if not name.startswith("num_")},
        "threads": threads,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load(snapshot: Path, label: str) -> Loaded:
    """Load a snapshot folder and find the batch shapes at which it may run. Raises Unavailable for damaged files."""
    import torch

    from models.generator import latents, load_generator

    try:
        generator = load_generator(snapshot, "cuda" if torch.cuda.is_available() else "cpu")
    except ModelFileError as error:
        raise Unavailable(f"The stored files of {label} cannot be used: restore or delete it.") from error
    info = generator.info
    n_classes = len(info.classes) if info.conditional else 0

    def draw(seeds: Sequence[int], truncation: NDArray[np.float32]) -> NDArray[np.float32]:
        return latents(info, seeds, truncation[:, None])

    def probe(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        z = draw(numbers.tolist(), np.ones(len(numbers), np.float32))
        return generator.forward(z, numbers % n_classes if n_classes else None)

    return Loaded(generator, draw, n_classes, verify(probe))
