"""The command line of the probe: a few real steps on noise, each under a clock."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import catalog
from models.config import ConfigError, DataSpec, TrainingConfig
from models.memory import is_out_of_memory, peak_memory
from worker.data.prepared import Data, DataFileError
from worker.evaluation import inception
from worker.runlog import RunLog
from worker.stop import StopSignal
from worker.trainer.__main__ import explain
from worker.trainer.failure import TrainingFailed
from worker.trainer.launcher import check_places
from worker.trainer.loop import train

WARM_STEPS = 2  # one of each kind, which no clock counts: the first allocates, and lets libraries choose their kernels
SECONDS = 4.0  # of steps, or a little more
MOST_STEPS = 500
LEAST_STEPS = 2 * WARM_STEPS  # each kind was timed
NOISE_EXAMPLES = 256
GPU_SHARE = 0.8  # of the memory that is free: others train beside it


class Clock:
    """Asked before every step whether to stop, it notes when that was."""

    def __init__(self, asked_to_stop: Callable[[], bool]) -> None:
        self._asked_to_stop = asked_to_stop
        self.times: list[float] = []
        self.stopped = False

    def __call__(self) -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.monotonic())
        steps = len(self.times) - 1
        self.stopped = self._asked_to_stop()
        if steps < LEAST_STEPS:
            return self.stopped
        over = self.times[-1] - self.times[WARM_STEPS] >= SECONDS
        return self.stopped or over or steps >= MOST_STEPS

    def step_seconds(self, every: int) -> float:
        """Of a step in the long run, of which one in so many is penalised; here the even ones were."""
        durations = np.diff(self.times)[WARM_STEPS:]
        penalised, plain = statistics.median(durations[::2]), statistics.median(durations[1::2])
        return float(penalised + (every - 1) * plain) / every


def read_probe(folder: Path) -> tuple[TrainingConfig, DataSpec, Path | None]:
    """What `probe.json` asks for, and where the worker has Inception's weights. Raises ConfigError."""
    try:
        asked = json.loads((folder / "probe.json").read_bytes())
        weights = Path(asked["inception_weights"]) if asked.get("inception_weights") else None
        return catalog.parse_config(asked["config"]), DataSpec.model_validate(asked["data"]), weights
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([("", f"probe.json cannot be used: {error}")]) from error


def noise(config: TrainingConfig, spec: DataSpec) -> Data:
    """No more examples of the data's shape than it takes, with labels of its classes."""
    n = min(spec.examples, max(config.batch_size, NOISE_EXAMPLES))
    random = np.random.default_rng(0)
    shape = (n, spec.height, spec.width, spec.channels)
    labels = random.integers(0, len(spec.classes), n) if spec.classes else np.full(n, -1)
    few = spec.model_copy(update={"examples": n, "unlabelled": 0})
    return Data(random.integers(0, 256, shape, dtype=np.uint8), labels.astype(np.int64), few, "noise")


def shortened(config: TrainingConfig) -> TrainingConfig:
    """The same steps without an end: nothing is drawn or evaluated on the way, and every other step is penalised."""
    document = config.model_dump(mode="json")
    never = {"tick": 10**12, "grid": 10**12, "checkpoint": 10**12, "evaluation": 10**12}
    changes: dict[str, Any] = {
        "budget": {"examples": 10**12},
        "processes": 1,
        "schedule": never,
        "penalties": document["penalties"] | {"every": min(config.penalties.every, 2)},
        "evaluation": document["evaluation"] | {"samples": 0},
        "stopping": {},
    }
    return catalog.parse_config(document | changes)


def check_here(config: TrainingConfig, inception_weights: Path | None) -> str | None:
    """What measuring leaves out and a job would meet at its start. Raises ConfigError; returns what may yet go wrong."""
    check_places(config.processes)
    if config.evaluation.features != "inception" or not config.evaluation.samples:
        return None
    inception.check_installed()
    if inception.find_weights(inception_weights):
        return None
    return "Inception's weights (91 MB) are not on the worker: the job downloads them when it starts, and fails where it cannot."


def measure(
    config: TrainingConfig, spec: DataSpec, asked_to_stop: Callable[[], bool], scratch: Path
) -> dict[str, Any] | None:
    """What is written as the last line; None when it was asked to stop. Raises what training raises.

    The run leaves a checkpoint when it stops, which goes with the folder: a job holds one in memory now and then, so it counts.
    """
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(GPU_SHARE * free / total)
    clock = Clock(asked_to_stop)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        events = Path(folder) / "events.jsonl"
        train(shortened(config), noise(config, spec), Path(folder), clock, RunLog(events))
        lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    if clock.stopped:
        return None
    (started,) = (line["data"] for line in lines if line["kind"] == "started")
    return {
        "parameters": started["parameters"],
        "memory_bytes": peak_memory(),
        "examples_per_second": round(config.batch_size / clock.step_seconds(config.penalties.every), 1),
        "fingerprint": started["fingerprint"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.probe", description="Measure what a config would need.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop-fd", type=int, help="stop when the pipe at this file descriptor ends")
    options = parser.parse_args(arguments)
    asked_to_stop = StopSignal(options.stop_fd)
    log = RunLog(options.folder / "events.jsonl")
    try:
        config, spec, weights = read_probe(options.folder)
        note = check_here(config, weights)
        found = measure(config, spec, asked_to_stop, options.folder)
    except (ConfigError, DataFileError, TrainingFailed, RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        code, message = explain(error)
        log.write("failed", code=code, message=message)
        return 1
    if found is None:
        log.write("stopped")
    else:
        log.write("finished", **found, note=note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
