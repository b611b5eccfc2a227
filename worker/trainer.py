"""Adversarial training as a plain local program: `python -m worker.trainer RUN_DIR [--stop-fd N]`.

    RUN_DIR/run.json        in   {"config": TrainingConfig, "data": folder of a prepared data set}
            checkpoints/    in and out, see worker/checkpoint.py; training goes on from the newest whole one
            grids/          out  <examples_seen:012d>.png, the fixed-seed pictures of progress
            events.jsonl    out  append-only, one object a line: {"kind", "examples_seen", "elapsed_seconds", "data"}

Events: started, metrics, grid, checkpoint, warning, verdict; and last one of finished (the budget is used up, the newest
checkpoint is the result), stopped (asked to, by SIGTERM, SIGINT or the end of the pipe at --stop-fd) and failed {"code",
"message"}. The exit status is 0 after finished and stopped, else 1.
"""

import argparse
import errno
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import catalog, ema, penalties
from models.config import ConfigError, TrainingConfig
from models.randomness import Purpose, normals
from worker.engine import Engine, choose_engine
from worker.faults import without_folders
from worker.loader import Data, DataFileError, open_data
from worker.recorder import Recorder, TrainingFailed
from worker.runlog import RunLog
from worker.stop import StopSignal
from worker.timetable import make_timetable


def train(config: TrainingConfig, data: Data, run_dir: Path, should_stop: Callable[[], bool], log: RunLog) -> None:
    """Train until the budget is used up or `should_stop` says so; what is made lies in `run_dir` (see above).

    Goodfellow et al. 2014 (arXiv:1406.2661), algorithm 1, with one step of each network on the same fakes. Every random number
    is a function of the seed and of the example's number, so a run that was killed goes on to the same bits. Raises
    ConfigError, TrainingFailed and OSError.
    """
    catalog.check(config, data.spec)
    loss = catalog.losses(config.loss)
    engine = choose_engine(config)
    with engine.activated():
        record = Recorder(config, data, engine, run_dir, log)
        state = record.resume_or_start()
        timetable = make_timetable(config, data.spec.examples, state.examples_total)
        G, D, B = state.G, state.D, config.batch_size
        record.started(state, timetable)

        while not timetable.complete(state.examples_seen) and not should_stop():
            first = state.examples_seen

            # Sample: real examples, and fakes of the same classes.
            real, labels = real_batch(config, data, engine, first)
            with engine.autocast():
                fake = G(latents(config, engine, first), labels)

            # Discriminator step. Real and fake pass apart, so that batch normalisation does not mix them.
            D.requires_grad_(True)
            with engine.autocast():
                real_logits, fake_logits = D(real, labels).float(), D(fake.detach(), labels).float()
            loss_d = loss.discriminator_loss(real_logits, fake_logits)
            loss_d.backward()
            if config.penalties.r1_gamma and first // B % config.penalties.r1_every == 0:
                # Lazily: so many times the weight, every so many steps (arXiv:1912.04958, appendix B).
                r1 = penalties.r1(partial(D, labels=labels), real)
                (r1 * (config.penalties.r1_gamma / 2 * config.penalties.r1_every)).backward()  # type: ignore[no-untyped-call]
                state.statistics.add_r1(r1)
            state.optimizer_d.step()

            # Generator step, through the discriminator as it now is.
            D.requires_grad_(False)
            with engine.autocast():
                logits = D(fake, labels).float()
            loss_g = loss.generator_loss(logits)
            loss_g.backward()
            state.optimizer_g.step()

            # Average.
            state.examples_seen = first + B
            ema.update(state.G_ema, G, ema.decay(config.ema, B, state.examples_seen))

            # Tick.
            state.statistics.add(loss_d, loss_g, real_logits, fake_logits)
            timetable = record.tick(state, timetable)

        record.ended(state, timetable)


def real_batch(config: TrainingConfig, data: Data, engine: Engine, first: int) -> tuple[Tensor, Tensor | None]:
    """Real images float32 [B, C, H, W] in [-1, 1] from example number `first` on, and their labels if they are to be used."""
    examples, labels = data.batch(config.seed, first, config.batch_size)
    # The file's order, channels last in memory, is the one that convolutions like.
    images = torch.from_numpy(examples).to(engine.device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1
    conditional = config.network.conditional
    return images, torch.from_numpy(labels).to(engine.device, non_blocking=True) if conditional else None


def latents(config: TrainingConfig, engine: Engine, first: int) -> Tensor:
    """float32 [B, z_dim]: the latents of the examples number `first` on."""
    numbers = np.arange(first, first + config.batch_size)
    z = normals(config.seed, numbers, Purpose.LATENT, config.network.z_dim)
    return torch.from_numpy(z).to(engine.device, non_blocking=True)


def read_run(run_dir: Path) -> tuple[TrainingConfig, Data]:
    """What `run.json` asks for. Raises ConfigError, DataFileError."""
    try:
        run = json.loads((run_dir / "run.json").read_bytes())
    except OSError as error:
        raise ConfigError([("", f"run.json cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        raise ConfigError([("", f"run.json is not JSON: {error}")]) from error
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict) or not isinstance(run.get("data"), str):
        raise ConfigError([("", 'run.json must be {"config": {...}, "data": "folder of a prepared data set"}')])
    return catalog.parse_config(run["config"]), open_data(Path(run["data"]))


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.trainer", description="Train a GAN in a run directory.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--stop-fd", type=int, help="stop when the pipe at this file descriptor ends")
    options = parser.parse_args(arguments)
    should_stop = StopSignal(options.stop_fd)
    if not options.run_dir.is_dir():
        parser.error(f"{options.run_dir} is not a directory")
    log = RunLog(options.run_dir / "events.jsonl")
    try:
        config, data = read_run(options.run_dir)
        train(config, data, options.run_dir, should_stop, log)
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
        case OSError(errno=errno.ENOSPC):
            return "disk_full", "The disk is full: a checkpoint could not be written."
        case _:
            return "io", f"Reading or writing failed: {without_folders(str(error))}"


def is_out_of_memory(error: Exception) -> bool:
    """On a GPU, in numpy, or in torch on the CPU, which says so in its message only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)


if __name__ == "__main__":
    sys.exit(main())
