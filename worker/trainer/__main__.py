"""The command line of the trainer, and what a run that fails says."""

import argparse
import json
import sys
from pathlib import Path

from models import catalog
from models.config import ConfigError, TrainingConfig
from models.machine import DISK_FULL
from models.memory import is_out_of_memory, within_the_machine
from worker.data.prepared import Data, DataFileError, open_data
from worker.faults import without_folders
from worker.runlog import RunLog
from worker.stop import StopSignal
from worker.trainer.failure import TrainingFailed
from worker.trainer.launcher import launch, log_path, place
from worker.trainer.loop import train
from worker.trainer.parallel import of_each


def read_run(run_dir: Path) -> tuple[TrainingConfig, Data, dict[str, Path | None]]:
    """What `run.json` asks for: config, data, and the paths that `train` may be given. Raises ConfigError, DataFileError."""
    try:
        run = json.loads((run_dir / "run.json").read_bytes())
    except OSError as error:
        raise ConfigError([("", f"run.json cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        raise ConfigError([("", f"run.json is not JSON: {error}")]) from error
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict) or not isinstance(run.get("data"), str):
        raise ConfigError([("", 'run.json must be {"config": {...}, "data": "folder of a prepared data set"}')])
    paths = {name: run_dir / run[name] if run.get(name) else None for name in ("initial", "inception_weights")}
    return catalog.parse_config(run["config"]), open_data(Path(run["data"])), paths


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.trainer", description="Train a GAN in a run directory.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--stop-fd", type=int, help="stop when the pipe at this file descriptor ends")
    options = parser.parse_args(arguments)
    should_stop = StopSignal(options.stop_fd)
    if not options.run_dir.is_dir():
        parser.error(f"{options.run_dir} is not a directory")
    here = place()
    log = RunLog(log_path(options.run_dir, here.rank if here else 0))
    try:
        config, data, paths = read_run(options.run_dir)
        if config.processes > 1 and here is None:
            return launch(options.run_dir, config.processes, should_stop)
        with within_the_machine(here.on_this_machine if here else 1):
            train(of_each(config, here.world if here else 1), data, options.run_dir, should_stop, log, **paths)
    except (ConfigError, DataFileError, TrainingFailed, RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        code, message = explain(error)
        log.write("failed", code=code, message=message)
        print(message, file=sys.stderr)  # noqa: T201 - a program's stderr
        return 1
    return 0


def explain(error: Exception) -> tuple[str, str]:
    """The code and the sentence that the last line of a failed run carries."""
    match error:
        case TrainingFailed():
            return error.code, error.message
        case ConfigError():
            return "config", f"This config cannot be trained: {error}"
        case DataFileError():
            return "data", without_folders(str(error))
        case _ if is_out_of_memory(error):
            return "out_of_memory", "The device ran out of memory; use a smaller batch_size, network or image size."
        case OSError(errno=number) if number in DISK_FULL:
            return "disk_full", "The disk is full: a checkpoint could not be written."
        case _:
            return "io", f"Reading or writing failed: {without_folders(str(error))}"


if __name__ == "__main__":
    sys.exit(main())
