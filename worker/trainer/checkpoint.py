"""Checkpoints on disk: resumable state beside a snapshot that can be sampled, written so that a kill never leaves half of one.

    checkpoints/<examples_seen:012d>/state.pt                all of training, for `torch.load(weights_only=True)`
                                     generator.safetensors   the averaged generator
                                     model.json              what it is, and the digests of both

A checkpoint is written to a hidden folder, synced, and renamed. Of `state.pt` only the newest few are kept, and the best one's.
"""

import hashlib
import io
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from models.manifest import MANIFEST, STATE, WEIGHTS
from worker.faults import without_folders

KEEP_STATES = 3
_WRITING = ".writing-"
_DAMAGED = ".damaged-"


class CheckpointError(Exception):
    """A checkpoint that is not whole."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint as it stands on disk; `sha256` and `size` (bytes) are of its generator.safetensors."""

    folder: Path
    sha256: str
    size: int


def save(
    folder: Path, examples_seen: int, state: dict[str, Any], weights: dict[str, Tensor], info: dict[str, Any]
) -> Saved:
    """Write a checkpoint under `folder` and return it once it is safe on disk.

    `info` is the manifest without its digests. Equal weights give equal bytes of generator.safetensors.
    """
    name = f"{examples_seen:012d}"
    snapshot = safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in weights.items()})
    buffer = io.BytesIO()
    torch.save(state, buffer)
    sha256 = hashlib.sha256(snapshot).hexdigest()
    manifest = info | {"sha256": sha256, "state_sha256": hashlib.sha256(buffer.getbuffer()).hexdigest()}
    writing = folder / f"{_WRITING}{name}"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    _write(writing / STATE, buffer.getbuffer())
    _write(writing / WEIGHTS, snapshot)
    _write(writing / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n")
    _sync(writing)
    shutil.rmtree(folder / name, ignore_errors=True)  # there if the run had to go on from before it
    writing.rename(folder / name)
    _sync(folder)
    _forget_old_states(folder)
    return Saved(folder / name, sha256, len(snapshot))


def load_newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint under `folder`; None if there is none.

    A damaged one is set aside, `warn` is told, and the one before it is tried.
    """
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)
    for checkpoint in reversed(_checkpoints(folder)):
        if not (checkpoint / STATE).exists() and (checkpoint / MANIFEST).exists():
            continue  # a snapshot whose state was given up
        try:
            return _load(checkpoint)
        except CheckpointError as error:
            warn(f"checkpoint {checkpoint.name} is damaged ({error}); going on from the one before it")
            shutil.rmtree(folder / f"{_DAMAGED}{checkpoint.name}", ignore_errors=True)
            checkpoint.rename(folder / f"{_DAMAGED}{checkpoint.name}")
    return None


def load_best(folder: Path) -> dict[str, Any] | None:
    """The state of the checkpoint under `folder` with the lowest KID, or of the newest where none has one; None without any."""
    whole = [checkpoint for checkpoint in _checkpoints(folder) if (checkpoint / STATE).exists()]
    for checkpoint in sorted(whole, key=_rank):
        try:
            return _load(checkpoint)
        except CheckpointError:
            continue  # the next best will do
    return None


def _rank(checkpoint: Path) -> tuple[float, int]:
    """Lower is better: by KID, as far as the manifest knows it, and then the newer."""
    try:
        kid = json.loads((checkpoint / MANIFEST).read_bytes())["metrics"]["kid"]
    except (OSError, ValueError, KeyError, TypeError):
        kid = None
    return math.inf if kid is None else float(kid), -int(checkpoint.name)


def _load(checkpoint: Path) -> dict[str, Any]:
    try:
        content = (checkpoint / STATE).read_bytes()
        expected = json.loads((checkpoint / MANIFEST).read_bytes())["state_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{type(error).__name__}: {without_folders(str(error))}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(f"{STATE} is not what was written")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:  # somebody else's file, and perhaps one that would run code
        raise CheckpointError(f"{STATE} holds more than tensors and plain values") from error
    return state


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob("[0-9]" * 12) if path.is_dir())


def _forget_old_states(folder: Path) -> None:
    """Snapshots stay: they are small, and each is a model."""
    whole = [checkpoint for checkpoint in _checkpoints(folder) if (checkpoint / STATE).exists()]
    best = min(whole, key=_rank)
    for checkpoint in whole[:-KEEP_STATES]:
        if checkpoint != best:
            (checkpoint / STATE).unlink()


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
