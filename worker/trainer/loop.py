"""The loop around the game. `worker.trainer` says what a run directory holds; everything slow or loud happens in `recorder`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models import catalog, ema
from models.config import ConfigError, TrainingConfig
from worker.data.prepared import Data
from worker.engine import choose_engine
from worker.runlog import RunLog
from worker.trainer import checkpoint, resume
from worker.trainer.adversarial import Adversarial
from worker.trainer.division import divide
from worker.trainer.failure import Diverged, TrainingFailed
from worker.trainer.mirror import is_mirrored
from worker.trainer.parallel import Ranks, joined, synchronise
from worker.trainer.parts import MIXED, SHARED, Parts
from worker.trainer.recorder import Recorder
from worker.trainer.settings import settings_at
from worker.trainer.state import State
from worker.trainer.timetable import Timetable, make_timetable
from worker.trainer.variational import Variational

MOST_ROLLBACKS = 2
GAMES: dict[str, type[Adversarial | Variational]] = {"adversarial": Adversarial, "variational": Variational}


def train(
    config: TrainingConfig,
    data: Data,
    run_dir: Path,
    should_stop: Callable[[], bool],
    log: RunLog,
    initial: Path | None = None,
    inception_weights: Path | None = None,
) -> None:
    """Train until the budget is used up or `should_stop` says so; what is made lies in `run_dir` (see above).

    Every random number is a function of the seed and of the example's number, so a run that was killed goes on to the same bits.
    A run without a checkpoint begins from the model in the folder `initial`, if given. Raises ConfigError, TrainingFailed and
    OSError. `inception_weights` is the file of the features that samples may be compared by.
    """
    catalog.check(config, data.spec)
    with joined() as ranks:
        check_ranks(config, ranks)
        engine = choose_engine(config, ranks.world)
        with engine.activated():
            saved = ranks.leader(lambda: resume.load(run_dir / "checkpoints", config, data, engine, log))
            data = look_at(config, data, saved, ranks, log)
            record = Recorder(config, data, engine, run_dir, log, should_stop, inception_weights)

            begin = partial(resume.begin, config, data, engine, initial if saved is None else None, log)
            state = begin()
            if saved is not None:
                state.restore(saved)
                if not ranks.leads:
                    state.statistics.clear()  # the leader's are those of all
                saved = None  # as large as the state itself
            synchronise(ranks, state.G, state.D)

            spec, B = catalog.FAMILIES[config.network.family], config.batch_size
            parts = Parts(
                config.micro_batch or B // ranks.world,
                lambda code, message: record.warn(state, code, message),
                MIXED if spec.mixes_batch else SHARED if ranks.world > 1 else None,
            )

            def led(step: Callable[[State, Timetable], Timetable], timetable: Timetable) -> Timetable:
                """What the leader comes to, who knows the sums of all ranks. Where it finds that training diverged, that rolls back."""
                ranks.sum(state.statistics.sums)
                try:
                    return ranks.leader(partial(step, state, timetable))
                except Diverged as divergence:
                    roll_back(state, timetable, begin, divergence, record, ranks, run_dir)
                    return timetable

            game = GAMES[spec.game](config, data, engine, ranks, parts)
            timetable = make_timetable(config, data.spec.examples, state.examples_total, state.generator_bytes)
            timetable = ranks.leader(lambda: record.started(state, timetable))

            while not timetable.complete(state.examples_seen) and not ranks.any(should_stop()):
                # Play: one step of each network.
                game.step(state, settings_at(config, state.examples_seen, timetable.total, state.rollbacks))
                state.examples_seen += B

                # Average.
                ema.update(state.G_ema, state.G, ema.decay(config.ema, B, state.examples_seen))

                # Tick: metrics, evaluations, grids, checkpoints.
                if timetable.anything_due(state.examples_seen):
                    timetable = led(record.tick, timetable)
                    if not ranks.leads:
                        state.statistics.clear()

            timetable = led(record.check, timetable)
            ranks.leader(lambda: record.ended(state, timetable))


def look_at(config: TrainingConfig, data: Data, saved: dict[str, Any] | None, ranks: Ranks, log: RunLog) -> Data:
    """The data, divided and mirrored as the config says, or as they were in the run that was `saved`. Takes no time of the budget."""
    began = log.elapsed_seconds
    division = ranks.leader(lambda: divide(config, data, resume.components(saved)))
    mirrored = ranks.leader(lambda: is_mirrored(config, data, resume.mirrored(saved)))
    log.count_from(began)
    return replace(data, division=division, mirrored=mirrored)


def check_ranks(config: TrainingConfig, ranks: Ranks) -> None:
    """Raises ConfigError where a launcher of somebody else's started more processes than can share a batch."""
    if config.batch_size % ranks.world:
        detail = f"a batch of {config.batch_size} cannot be shared evenly by {ranks.world} processes"
        raise ConfigError([("/batch_size", detail)])


def roll_back(
    state: State,
    timetable: Timetable,
    begin: Callable[[], State],
    divergence: Diverged,
    record: Recorder,
    ranks: Ranks,
    run_dir: Path,
) -> None:
    """Go on from the best checkpoint, or from where the run began where there is none, with gentler settings.

    Time does not go back: the examples that were seen count as seen. Raises TrainingFailed after MOST_ROLLBACKS,
    and at the end of a run without a checkpoint.
    """
    message = f"Training diverged: after {state.examples_seen:,} examples {divergence.reason}."
    if ranks.leads:
        record.diverged(state, message, divergence.figures)
    if state.rollbacks == MOST_ROLLBACKS:
        raise TrainingFailed(
            "diverged",
            f"{message} Going back {MOST_ROLLBACKS} times, each time with {record.gentler}, did not help. {record.advice}",
        )
    best = ranks.leader(lambda: checkpoint.load_best(run_dir / "checkpoints"))
    if best is None and timetable.complete(state.examples_seen):
        raise TrainingFailed("diverged", f"{message} Lower the learning rates, and train for longer.")
    state.restore_networks(begin().document() if best is None else best)
    state.rollbacks += 1
    if ranks.leads:
        where = "where it began" if best is None else f"the best checkpoint, after {best['examples_seen']:,} examples"
        record.warn(
            state,
            "rolled_back",
            f"{message} It goes on from {where}, with {record.gentler}.",
        )
