"""One folder a family: `spec.py` (torch-free) holds its `SPEC`, `network.py` its `Generator` and `Discriminator`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from models.config import DataSpec, NetworkOptions


@dataclass(frozen=True)
class FamilySpec:
    """What is known of a family without importing torch.

    `check(options, data)` raises `ConfigError`, with pointers such as "/network/width", when these options cannot make
    networks for this data. `mixes_batch` says that what comes out for an image depends on the others of its batch, as under batch
    normalisation. A variational family has an `Encoder` where an adversarial one has a `Discriminator`.
    """

    name: str
    summary: str
    options: type[NetworkOptions]
    check: Callable[[Any, DataSpec], None]
    mixes_batch: bool = False
    game: Literal["adversarial", "variational"] = "adversarial"
