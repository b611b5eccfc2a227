"""What a run leaves behind: metrics, evaluations, grids and checkpoints on schedule, and the account of it in `events.jsonl`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.catalog import FAMILIES
from models.config import TrainingConfig
from models.memory import peak_memory
from worker.data.prepared import Data
from worker.engine import Engine
from worker.runlog import RunLog
from worker.trainer import checkpoint
from worker.trainer.evaluations import Evaluations
from worker.trainer.grid import write_grid
from worker.trainer.state import State
from worker.trainer.timetable import PROBE_TICK_SECONDS, TRAINING_SHARE, Timetable, make_timetable, probed_total
from worker.trainer.verdicts import ADVICE, GENTLER, Verdict, check_tick, judge, should_end

MEASURED = ("kid", "fid", "precision", "recall", "density", "coverage")  # what a model file says of its generator


class Recorder:
    """The only part of training that touches the disk or waits for the device."""

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        engine: Engine,
        run_dir: Path,
        log: RunLog,
        should_stop: Callable[[], bool],
        inception_weights: Path | None,
    ) -> None:
        self._evaluations = Evaluations(config, data, engine, log, should_stop, inception_weights)
        self._config = config
        self._data = data
        self._engine = engine
        self._run_dir = run_dir
        self._log = log
        self._verdict = ""
        self._said: set[str] = set()  # of healthy runs, so that one near a bound does not go to and fro
        self._saved_at = 0  # examples_seen of the newest checkpoint
        self._began = self._ticked = self._checked = (0, 0.0)  # (examples_seen, monotonic seconds)
        self._warm: tuple[int, float] | None = None  # where the measuring of a budget in seconds began

    @property
    def advice(self) -> str:
        """What helps against the ills of this family."""
        return ADVICE[FAMILIES[self._config.network.family].game]

    @property
    def gentler(self) -> str:
        """What a rollback does to the settings of this family."""
        return GENTLER[FAMILIES[self._config.network.family].game]

    def started(self, state: State, timetable: Timetable) -> Timetable:
        """Say what begins; a fresh run shows its first grid. Returns the timetable, whose end an evaluation may have found."""
        self._evaluations.check_features()
        self._saved_at = state.examples_seen
        self._log.write(
            "started",
            state.examples_seen,
            fingerprint=self._engine.fingerprint,
            examples_total=timetable.total,
            parameters={
                "generator": sum(parameter.numel() for parameter in state.G.parameters()),
                "discriminator": sum(parameter.numel() for parameter in state.D.parameters()),
            },
            threads=self._engine.threads,
            mirrored=self._data.mirrored,
            resumed=state.examples_seen > 0,
        )
        if state.examples_seen == 0:
            self._grid(state)
        timetable = self._make_up(state, timetable)
        self._began = self._ticked = self._checked = (state.examples_seen, time.monotonic())
        return timetable

    def check(self, state: State, timetable: Timetable) -> Timetable:
        """The same timetable. Raises Diverged for what happened since the last tick: a run that is stopped does not save that."""
        if state.examples_seen > self._saved_at and not timetable.complete(state.examples_seen):
            self._means(state)
        return timetable

    def tick(self, state: State, timetable: Timetable) -> Timetable:
        """Do what is due after so many examples.

        Returns the timetable, whose end a budget in seconds, or what the user wanted to stop at, may just have found. Raises
        Diverged.
        """
        seen = state.examples_seen
        if seen % timetable.tick == 0:
            timetable = self._probe(state, timetable)
        if timetable.due(seen, timetable.checkpoint):
            timetable = self._correct(state, timetable)
        means = self._means(state)
        now = (seen, time.monotonic())
        report: dict[str, Any] | None = None
        if self._config.evaluation.samples and timetable.due(seen, timetable.evaluation):
            report = self._evaluations.evaluate(state)
        if report is not None:
            timetable = self._judge(state, timetable)
        if timetable.due(seen, timetable.tick) and (timetable.total or now[1] - self._ticked[1] >= PROBE_TICK_SECONDS):
            self._metrics(state, timetable, means, now)
        if timetable.due(seen, timetable.grid):
            self._grid(state)
        if timetable.due(seen, timetable.checkpoint) or report is not None:  # what was measured can be published
            self._checkpoint(state, report)
        self._ticked = (self._ticked[0], self._ticked[1] + time.monotonic() - now[1])  # the speed is that of training
        return timetable

    def diverged(self, state: State, message: str, figures: dict[str, float | None]) -> None:
        """Say that training blew up."""
        state.statistics.clear()
        self._verdict = ""  # each time
        self._say(state, Verdict("diverged", message, figures))

    def warn(self, state: State, code: str, message: str) -> None:
        self._log.write("warning", state.examples_seen, code=code, message=message)

    def ended(self, state: State, timetable: Timetable) -> None:
        """The last line of a run that did not fail; one that was stopped saves its state first.

        One that was stopped in its last evaluation is not finished: the next run makes that up.
        """
        if timetable.complete(state.examples_seen) and not self._evaluations.interrupted:
            self._log.write("finished", state.examples_seen)
            return
        if state.examples_seen > self._saved_at:
            self._checkpoint(state, None)
        self._log.write("stopped", state.examples_seen)

    def _probe(self, state: State, timetable: Timetable) -> Timetable:
        """Set the end of a budget in seconds once the speed is known. The first tick is not typical: it only starts the clock."""
        budget, now = self._config.budget.seconds, (state.examples_seen, time.monotonic())
        if timetable.total is not None or budget is None:
            return timetable
        if self._warm is None:
            self._warm = now
            if self._log.elapsed_seconds < budget:
                return timetable
        speed, probed = _rate(self._warm, now), now[1] - self._began[1]
        share = TRAINING_SHARE if self._config.evaluation.samples else 1.0
        elapsed = self._log.elapsed_seconds
        state.examples_total = probed_total(budget * share, elapsed, probed, state.examples_seen, speed)
        return make_timetable(self._config, self._data.spec.examples, state.examples_total, state.generator_bytes)

    def _correct(self, state: State, timetable: Timetable) -> Timetable:
        """Fit the end of a budget in seconds to the speed since the last checkpoint: other work may have come or gone."""
        before, self._checked = self._checked, (state.examples_seen, time.monotonic())
        budget = self._config.budget.seconds
        if budget is None or timetable.total is None or timetable.complete(state.examples_seen):
            return timetable
        # The last evaluation follows the last step.
        left = budget - self._log.elapsed_seconds - self._evaluations.seconds
        speed = _rate(before, self._checked)
        state.examples_total = state.examples_seen + max(0, round(left * speed))
        return timetable.ending(state.examples_total, self._config.batch_size)

    def _make_up(self, state: State, timetable: Timetable) -> Timetable:
        """The evaluation that was due when the run was stopped, which left it out: into the checkpoint of then."""
        due = self._config.evaluation.samples and timetable.due(state.examples_seen, timetable.evaluation)
        if not due or not self._evaluations.is_missing(state):
            return timetable
        report = self._evaluations.make_up(state)
        if report is not None:
            timetable = self._judge(state, timetable)
        if report is not None or state.given_up == state.examples_seen:  # else the next run would begin with it again
            self._checkpoint(state, report)
        return timetable

    def _judge(self, state: State, timetable: Timetable) -> Timetable:
        """Say how the run is doing; it ends here where the user has what was wanted."""
        self._say(state, judge(state.reports, self._config.stopping, self.advice))
        if not should_end(state.reports, self._config.stopping):
            return timetable
        state.examples_total = state.examples_seen
        return timetable.ending(state.examples_seen, self._config.batch_size)

    def _say(self, state: State, verdict: Verdict) -> None:
        """Only when it is another one, or as good for a new reason; of the others, the sentence has figures in it."""
        said = verdict.message if verdict.verdict == "healthy" else ""
        if verdict.verdict != self._verdict:
            self._said.clear()
        if said not in self._said:
            self._verdict = verdict.verdict
            self._said.add(said)
            self._log.write("verdict", state.examples_seen, **vars(verdict))

    def _means(self, state: State) -> dict[str, float]:
        """Since the last tick. Raises Diverged."""
        means = state.statistics.means() | state.weights_rms()
        check_tick(means, state.examples_seen / self._config.batch_size)
        return means

    def _metrics(self, state: State, timetable: Timetable, means: dict[str, float], now: tuple[int, float]) -> None:
        overall = _rate(self._began, now)
        self._log.write(
            "metrics",
            state.examples_seen,
            **means,
            memory_bytes=peak_memory(),
            examples_per_second=round(_rate(self._ticked, now), 1),
            examples_total=timetable.total,
            eta_seconds=None
            if timetable.total is None
            else round(max(timetable.total - state.examples_seen, 0) / overall, 1),
        )
        state.statistics.clear()
        self._ticked = now

    def _grid(self, state: State) -> None:
        path = Path("grids") / f"{state.examples_seen:012d}.png"
        write_grid(self._run_dir / path, state.G_ema, self._config, self._data.spec, self._engine)
        self._log.write("grid", state.examples_seen, path=str(path))

    def _checkpoint(self, state: State, report: dict[str, Any] | None) -> None:
        division = self._data.division
        saved = checkpoint.save(
            self._run_dir / "checkpoints",
            state.examples_seen,
            state.document()
            | {
                "config": self._config.model_dump(mode="json"),
                "data_sha256": self._data.sha256,
                "components": None if division is None else torch.from_numpy(division.components),
                "mirrored": self._data.mirrored,
                "fingerprint": self._engine.fingerprint,
                "elapsed_seconds": self._log.elapsed_seconds,
            },
            state.G_ema.state_dict(),
            self._manifest(state, report),
        )
        self._saved_at = state.examples_seen
        path = str(saved.folder.relative_to(self._run_dir))
        kid = None if report is None else report["kid"]
        self._log.write("checkpoint", state.examples_seen, path=path, sha256=saved.sha256, size=saved.size, kid=kid)

    def _manifest(self, state: State, report: dict[str, Any] | None) -> dict[str, Any]:
        """`models.manifest.GeneratorInfo` as JSON, without the digest that saving adds."""
        network, data = self._config.network, self._data.spec
        return {
            "format": 1,
            "family": network.family,
            "network": network.model_dump(mode="json"),
            "height": data.height,
            "width": data.width,
            "channels": data.channels,
            "classes": list(data.classes) if network.conditional else [],
            "z_dim": network.z_dim,
            "conditional": network.conditional,
            "examples_seen": state.examples_seen,
            "config": self._config.model_dump(mode="json"),
            "dataset": {"sha256": self._data.sha256, "examples": data.examples},
            "features": None if report is None else report["features"]["name"],
            "metrics": {name: None if report is None else report[name] for name in MEASURED},
            "fingerprint": self._engine.fingerprint,
        }


def _rate(before: tuple[int, float], now: tuple[int, float]) -> float:
    """Examples per second between two (examples, seconds)."""
    return (now[0] - before[0]) / max(now[1] - before[1], 1e-9)
