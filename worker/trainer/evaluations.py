"""Evaluations of a run, each in bounded time: what takes longer than a run of its job lasts would be begun again for ever."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.config import TrainingConfig
from worker.data.prepared import Data
from worker.engine import Engine
from worker.runlog import RunLog
from worker.trainer.draws import evaluation_draw
from worker.trainer.state import State

if TYPE_CHECKING:
    from worker.evaluation.evaluator import Evaluator

LONGEST_SECONDS = 20 * 60.0  # well below what the other ranks wait for the leader (`parallel.PATIENCE`)
PATIENCE_SECONDS = 60.0  # for an evaluation that is made up: once interrupted after longer than that, it is given up

JUDGED = ("kid", "kid_floor_high", "coverage", "spread", "duplicates", "memorisation", "features")  # for the verdicts


class Interrupted(Exception):
    """The run was asked to stop while it was evaluated."""


class TooLong(Exception):
    """The evaluation did not end in LONGEST_SECONDS."""


class Evaluations:
    """Compares the averaged generator with the data and keeps the reports in the state. `seconds` is what the last one took.

    `interrupted` is whether the last one was cut off, since the run was asked to stop.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        engine: Engine,
        log: RunLog,
        should_stop: Callable[[], bool],
        inception_weights: Path | None,
    ) -> None:
        self._config = config
        self._data = data
        self._engine = engine
        self._log = log
        self._should_stop = should_stop
        self._inception_weights = inception_weights
        self._begun = 0.0
        self._too_slow = False  # for good: the next one would take as long
        self.seconds = 0.0
        self.interrupted = False

    @cached_property
    def _evaluator(self) -> "Evaluator":
        from worker.evaluation.evaluator import Evaluator  # not before the first step

        return Evaluator(self._data, self._config, self._engine.device, self._inception_weights, self._between)

    def check_features(self) -> None:
        """Raises ConfigError when the features that were asked for cannot be had: before any time is spent."""
        if self._config.evaluation.samples and self._config.evaluation.features != "auto":
            self._evaluator.check_features()

    def evaluate(self, state: State) -> dict[str, Any] | None:
        """The report; None when the run was asked to stop meanwhile, or it took too long."""
        if self._too_slow:
            state.given_up = state.examples_seen
            return None
        self._begun, self.interrupted = time.monotonic(), False
        draw = evaluation_draw(state.G_ema, self._config, self._data, self._engine, self._between)
        try:
            report: dict[str, Any] = self._evaluator.evaluate(draw)
        except Interrupted:
            self.interrupted = True
            return None
        except TooLong:
            self._too_slow = True
            self._give_up(state, f"It was not done after {LONGEST_SECONDS / 60:g} minutes, and this run makes no more.")
            return None
        self.seconds = report["seconds"]
        self._log.write("evaluation", state.examples_seen, **report)
        state.reports.append({"examples_seen": state.examples_seen} | {name: report[name] for name in JUDGED})
        return report

    def is_missing(self, state: State) -> bool:
        """Whether the run that stopped here left one out that was due, and that is not given up."""
        done = [report["examples_seen"] for report in state.reports]
        return state.examples_seen not in {0, state.given_up, *done}

    def make_up(self, state: State) -> dict[str, Any] | None:
        """That one. None as above; a run that lasts too short for it gives it up."""
        report = self.evaluate(state)
        if self.interrupted and time.monotonic() - self._begun > PATIENCE_SECONDS:
            self._give_up(state, "It takes longer than this job may run in one go.")
        return report

    def _give_up(self, state: State, reason: str) -> None:
        state.given_up = state.examples_seen
        message = (
            f"This evaluation is left out. {reason} Lower evaluation.samples, or choose other evaluation.features."
        )
        self._log.write("warning", state.examples_seen, code="evaluation_left_out", message=message)

    def _between(self) -> None:
        """Raises Interrupted once the run should stop, and TooLong."""
        if self._should_stop():
            raise Interrupted
        if time.monotonic() - self._begun > LONGEST_SECONDS:
            raise TooLong
