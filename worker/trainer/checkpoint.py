"""Checkpoints on disk: resumable state beside a snapshot that can be sampled, written so that a kill never leaves half of one.

    checkpoints/<examples_seen:012d>/state.pt                all of training, for `torch.load(weights_only=True)`
                                     generator.safetensors   the averaged generator
                                     model.json              what it is, and the digests of both

A checkpoint is written to a hidden folder, synced, and renamed; one of the same name is set aside until then. Of `state.pt` only the newest few are kept, and the best one's.
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
_REPLACED = ".replaced-"
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
    replaced = folder / f"{_REPLACED}{name}"
    if (folder / name).exists():  # the run had to go on from before it, or knows more of it now
        shutil.rmtree(replaced, ignore_errors=True)
        (folder / name).rename(replaced)
    writing.rename(folder / name)
    _sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    _forget_old_states(folder)
    return Saved(folder / name, sha256, len(snapshot))


def load_newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint under `folder`; None if there is none.

    A damaged one is set aside, `warn` is told, and the one before it is tried.
    """
    _tidy(folder)
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


def _tidy(folder: Path) -> None:
    """Finish what a kill left half done."""
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)
    for replaced in folder.glob(f"{_REPLACED}*"):
        successor = folder / replaced.name.removeprefix(_REPLACED)
        if successor.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(successor)


def load_best(folder: Path) -> dict[str, Any] | None:
    """The state of the checkpoint under `folder` with the lowest KID, or of the newest where none has one; None without any."""
    for checkpoint in _best_first([path for path in _checkpoints(folder) if (path / STATE).exists()]):
        try:
            return _load(checkpoint)
        except CheckpointError:
            continue  # the next best will do
    return None


def _best_first(checkpoints: list[Path]) -> list[Path]:
    """By KID, in the features of the last of them that has one, since those of other features cannot be compared; then the newer."""
    kids = {checkpoint: _kid(checkpoint) for checkpoint in checkpoints}
    features = next((found[1] for found in reversed(kids.values()) if found is not None), None)

    def rank(checkpoint: Path) -> tuple[float, int]:
        found = kids[checkpoint]
        return math.inf if found is None or found[1] != features else found[0], -int(checkpoint.name)

    return sorted(checkpoints, key=rank)


def _kid(checkpoint: Path) -> tuple[float, str | None] | None:
    """With the name of its features; None where the manifest does not know it."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        return float(manifest["metrics"]["kid"]), manifest.get("features")
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    best = _best_first(whole)[0]
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
