"""The adversarial loop. `worker.trainer` says what a run directory holds; everything slow or loud happens in `recorder`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import catalog, ema, penalties
from models.config import TrainingConfig
from models.randomness import Purpose, normals
from worker.runlog import RunLog
from worker.trainer.engine import Engine, choose_engine
from worker.trainer.loader import Data
from worker.trainer.recorder import Recorder
from worker.trainer.timetable import make_timetable


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
