"""Where a run begins: at its newest checkpoint, at the model that it was told to start from, or at first weights."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models import catalog
from models.config import ConfigError, TrainingConfig
from models.generator import ModelFileError, read_info
from models.manifest import STATE, WEIGHTS
from worker.data.prepared import Data
from worker.engine import Engine
from worker.runlog import RunLog
from worker.trainer import checkpoint
from worker.trainer.failure import TrainingFailed
from worker.trainer.state import State

# Between a checkpoint and the run that goes on from it these may change; anything else makes it another run.
MAY_CHANGE = {"budget", "schedule", "precision", "threads", "processes", "micro_batch", "stopping", "evaluation"}


def load(folder: Path, config: TrainingConfig, data: Data, engine: Engine, log: RunLog) -> dict[str, Any] | None:
    """The newest whole checkpoint's document; None when there is none. Raises TrainingFailed if it is another run's."""
    document = checkpoint.load_newest(
        folder, lambda message: log.write("warning", code="checkpoint_damaged", message=message)
    )
    if document is None:
        return None
    changed = _changed(document, config)
    if not_allowed := [key for key in changed if key not in MAY_CHANGE]:
        raise TrainingFailed(
            "checkpoint_mismatch",
            f"the checkpoint was trained with another {', '.join(not_allowed)}; start a new run",
        )
    if document["data_sha256"] != data.sha256:
        raise TrainingFailed("checkpoint_mismatch", "the checkpoint was trained on other data; start a new run")
    if "budget" in changed:
        document["examples_total"] = None  # what the old budget came to no longer counts
    log.count_from(document["elapsed_seconds"])
    if document["fingerprint"] != engine.fingerprint:
        log.write(
            "warning",
            document["examples_seen"],
            code="engine_changed",
            message="This run goes on under another engine: its result will differ in the last bits from an undisturbed run.",
            before=document["fingerprint"],
            now=engine.fingerprint,
        )
    return document


def components(document: dict[str, Any] | None) -> npt.NDArray[np.int16] | None:
    """int16 [N]: which component each example belongs to in the run of this checkpoint; None where there are none."""
    found = None if document is None else document.get("components")
    return None if found is None else found.numpy()


def mirrored(document: dict[str, Any] | None) -> bool | None:
    """Whether the run of this checkpoint mirrors half of its examples; None where that is not known."""
    return None if document is None else document.get("mirrored")


def _changed(document: dict[str, Any], config: TrainingConfig) -> list[str]:
    """The parts of the config that are not as they were. Fields that are newer than the checkpoint had their defaults."""
    try:
        before = catalog.parse_config(document["config"]).model_dump(mode="json")
    except ConfigError as error:
        message = f"the checkpoint's config is none of this release: {error}; start a new run"
        raise TrainingFailed("checkpoint_mismatch", message) from error
    now = config.model_dump(mode="json")
    return sorted(key for key in now.keys() | before.keys() if before.get(key) != now.get(key))


def begin(config: TrainingConfig, data: Data, engine: Engine, initial: Path | None, log: RunLog) -> State:
    """The state before the first step: of the seed's first weights, or of the model in the folder `initial`. Raises as `transfer`."""
    state = State.initial(config, data.spec, engine)
    if initial is not None:
        transfer(state, initial, config, log)
    state.share_out(data.division)
    return state


def transfer(state: State, initial: Path, config: TrainingConfig, log: RunLog) -> None:
    """Begin from another model's generator, and from its discriminator where its training state lies beside it.

    Tensors that have another shape here, such as a table of other classes, keep their first values, and a warning names them.
    Raises TrainingFailed if the model is none of this family.
    """
    try:
        info = read_info(initial)
        weights = safetensors.torch.load_file(initial / WEIGHTS)
        saved = torch.load(initial / STATE, map_location="cpu", weights_only=True) if (initial / STATE).exists() else {}
    except (ModelFileError, SafetensorError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingFailed("initial_damaged", f"the model to start from cannot be read: {error}") from error
    if info.family != config.network.family:
        message = f"the model to start from is a {info.family}, and this config asks for {config.network.family}"
        raise TrainingFailed("initial_mismatch", message)
    left = [
        *_copy(state.G, saved.get("G", weights), "G"),
        *_copy(state.G_ema, weights, "G_ema"),
        *_copy(state.D, saved.get("D", {}), "D"),
    ]
    log.write(
        "log",
        message=f"Starts from a model that saw {info.examples_seen:,} examples.",
        sha256=info.sha256,
        discriminator="D" in saved,
    )
    if left:
        message = f"These do not fit the model to start from, and begin anew: {', '.join(left)}."
        log.write("warning", code="initial_partly", message=message)


@torch.no_grad()
def _copy(network: nn.Module, weights: dict[str, Tensor], name: str) -> list[str]:
    """Fill what fits, and return the names of what does not."""
    left = []
    for key, mine in network.state_dict().items():
        its = weights.get(key)
        if its is not None and its.shape == mine.shape:
            mine.copy_(its)
        elif weights:
            left.append(f"{name}.{key}")
    return left
