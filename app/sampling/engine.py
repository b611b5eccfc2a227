"""Where app reaches torch, and only when a sample is first asked for: nothing here imports it at import time."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.errors import Gone, Unavailable
from app.interpreter import keep_imported
from app.registry import Resolved
from app.sampling.loaded import Loaded
from app.sampling.shapes import Shapes, verify
from models.catalog import parse_network
from models.machine import spare_memory
from models.manifest import GeneratorInfo, ModelFileError, read_info, weights_size

if TYPE_CHECKING:
    import torch

COPIES = (
    4  # of a model's weights that loading holds at once: the file, its tensors, the network's own and the first ones
)
# Of a manifest, beside its network.
RECORDED = {"family", "height", "width", "channels", "classes", "z_dim", "conditional"}
FORM = 4  # of generators when they sample: raised whenever models.prepared gives other bits


def start_thread(threads: int) -> None:
    """To be called first by every thread that generates or loads: results hold for a fixed number of CPU threads."""
    import torch

    from models.determinism import make_deterministic

    torch.set_num_threads(threads)
    make_deterministic(_device())


def digest(threads: int) -> str:
    """Of all that decides the bits beside the model and the request. The device is chosen as `load` does."""
    from models.fingerprint import fingerprint

    return hashlib.sha256(
        json.dumps([FORM, fingerprint(_device(), _precision(), threads)], sort_keys=True).encode()
    ).hexdigest()


def _device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _precision() -> str:
    from models.prepared import faster_precision

    return faster_precision(_device())


@contextmanager
def short_memory_refused() -> Iterator[None]:
    """Raises Unavailable where numpy or torch finds too little memory, the device's or this machine's."""
    from models.memory import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unavailable("There is too little memory for this now: ask for fewer samples, or later.") from error


def load(snapshot: Path, resolved: Resolved) -> Loaded:
    """Load a snapshot folder and find the batch shapes at which it may run.

    Raises Unavailable when memory is short, and for files that are damaged, or whole but not the ones on record; Gone for files
    that were deleted; TooHeavy.
    """
    with damage_told(resolved), short_memory_refused():
        size, spare = weights_size(snapshot), spare_memory()
        if spare is not None and COPIES * size > spare:  # the kernel would end some process of this machine
            raise Unavailable(f"There is too little memory to load {resolved.label} now, which has {size:,} bytes.")
        if not is_on_record(read_info(snapshot), resolved):
            raise Unavailable(f"The stored files of {resolved.label} are not the ones on record: restore or delete it.")
        return _load(snapshot)


@contextmanager
def damage_told(resolved: Resolved) -> Iterator[None]:
    """Raises Gone for files that were deleted meanwhile, and Unavailable for others that cannot be used."""
    try:
        yield
    except ModelFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise Gone(f"The files of {resolved.label} are no longer in the storage.") from error
        raise Unavailable(f"The stored files of {resolved.label} cannot be used: restore or delete it.") from error


def is_on_record(info: GeneratorInfo, resolved: Resolved) -> bool:
    """Whether a manifest says what was registered: it vouches for the weights, and nothing else vouches for it."""
    said, recorded = info.model_dump(mode="json", include=RECORDED), resolved.info
    if info.sha256 != resolved.sha256 or not said.items() <= recorded.items():
        return False
    return "network" not in recorded or parse_network(recorded["network"]) == info.network


def _load(snapshot: Path) -> Loaded:
    from models.generator import latents, load_generator

    generator = load_generator(snapshot, _device()).prepared(_precision())
    info = generator.info
    n_classes = len(info.classes) if info.conditional else 0

    def draw(seeds: Sequence[int], truncation: NDArray[np.float32]) -> NDArray[np.float32]:
        return latents(info, seeds, truncation[:, None])

    def probe(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        z = draw(numbers.tolist(), np.ones(len(numbers), np.float32))
        return generator.forward(z, numbers % n_classes if n_classes else None)

    def mixed_probe(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        z = draw(numbers.tolist(), np.ones(len(numbers), np.float32))
        share = ((numbers + 1) / (numbers + 2)).astype(np.float32)[:, None]
        one, other = (np.eye(n_classes, dtype=np.float32)[(numbers + step) % n_classes] for step in (0, 1))
        return generator.forward(z, share * one + (1 - share) * other)

    def verify_mixtures() -> Shapes:
        with short_memory_refused():
            return verify(mixed_probe)

    shapes = verify(probe)
    keep_imported()
    return Loaded(generator, draw, n_classes, shapes, verify_mixtures)
