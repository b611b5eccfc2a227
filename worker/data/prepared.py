"""Prepared data, read in place: which example stands where in training is a pure function of the seed.

A prepared folder holds `examples.npy` (uint8 [N, H, W, C]), `labels.npy` (int64 [N], -1 for those without a label) and `dataset.json`.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from models.components import Division
from models.config import DataSpec
from models.randomness import permutation


class DataFileError(Exception):
    """A prepared folder that is missing, damaged or not what its `dataset.json` says."""


@dataclass(frozen=True)
class Data:
    """`examples` is mapped from the file rather than read, so that memory does not grow with the data set.

    `folder` is where it was prepared, and may hold the network that its images are compared by. `division` is how a run divides
    its classes into components, and `mirrored` whether it mirrors half of its examples.
    """

    examples: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    spec: DataSpec
    sha256: str
    folder: Path | None = None
    division: Division | None = None
    mirrored: bool = False

    def order(self, seed: int, first: int, n: int) -> npt.NDArray[np.int64]:
        """int64 [n]: the numbers of what training with this seed sees as its examples first .. first + n - 1.

        Each epoch visits every example once, in an order of its own; a batch may reach from one epoch into the next.
        """
        epochs, places = np.divmod(np.arange(first, first + n), len(self.labels))
        return np.concatenate([_order(seed, int(e), len(self.labels))[places[epochs == e]] for e in np.unique(epochs)])


@lru_cache(maxsize=2)  # a batch reaches over at most two epochs when it is no larger than the data set
def _order(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    return permutation(seed, epoch, n)


def open_data(folder: Path) -> Data:
    """The data set in a prepared folder. Raises DataFileError."""
    try:
        about = json.loads((folder / "dataset.json").read_bytes())
        examples = np.load(folder / "examples.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        spec = DataSpec(
            examples=about["examples"],
            height=about["height"],
            width=about["width"],
            channels=about["channels"],
            classes=tuple(entry["name"] for entry in about["classes"]),
            unlabelled=about.get("unlabelled", 0),
        )
        sha256 = str(about["sha256"])
    except OSError as error:
        raise DataFileError(f"the prepared data cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, EOFError, ValidationError) as error:
        raise DataFileError(f"the prepared data is damaged: {error}") from error
    _check(examples, labels, spec, folder)
    return Data(examples, labels, spec, sha256, folder)


def _check(examples: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], spec: DataSpec, folder: Path) -> None:
    shape = (spec.examples, spec.height, spec.width, spec.channels)
    if examples.dtype != np.uint8 or examples.shape != shape:
        raise DataFileError(f"{folder}/examples.npy holds {examples.dtype} {examples.shape}, expected uint8 {shape}")
    if labels.dtype != np.int64 or labels.shape != shape[:1]:
        raise DataFileError(f"{folder}/labels.npy holds {labels.dtype} {labels.shape}, expected int64 {shape[:1]}")
    if spec.classes and not ((labels >= -1) & (labels < len(spec.classes))).all():
        raise DataFileError(f"{folder}/labels.npy names classes outside -1 .. {len(spec.classes) - 1}")
