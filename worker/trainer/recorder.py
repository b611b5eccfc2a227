"""What a run leaves behind: metrics, grids and checkpoints on schedule, and the account of it in `events.jsonl`."""

import time
from pathlib import Path
from typing import Any

from models import catalog
from models.config import ConfigError, TrainingConfig
from worker.runlog import RunLog
from worker.trainer import checkpoint
from worker.trainer.engine import Engine
from worker.trainer.grid import write_grid
from worker.trainer.loader import Data
from worker.trainer.state import State
from worker.trainer.timetable import Timetable, make_timetable, probed_total

# Between a checkpoint and the run that goes on from it these may change; anything else makes it another run.
MAY_CHANGE = {"budget", "schedule", "precision", "threads"}


class TrainingFailed(Exception):
    """A run that cannot go on. `code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Recorder:
    """The only part of training that touches the disk or waits for the device."""

    def __init__(self, config: TrainingConfig, data: Data, engine: Engine, run_dir: Path, log: RunLog) -> None:
        self._config = config
        self._data = data
        self._engine = engine
        self._run_dir = run_dir
        self._log = log
        self._saved_at = 0  # examples_seen of the newest checkpoint
        self._began = self._ticked = (0, 0.0)  # (examples_seen, monotonic seconds)
        self._warm: tuple[int, float] | None = None  # where the measuring of a budget in seconds began

    def resume_or_start(self) -> State:
        """The state of the newest whole checkpoint, or the initial one. Raises TrainingFailed if it is another run's."""
        state = State.initial(self._config, self._data.spec, self._engine)
        document = checkpoint.load_newest(
            self._run_dir / "checkpoints",
            lambda message: self._log.write("warning", code="checkpoint_damaged", message=message),
        )
        if document is not None:
            self._restore(state, document)
        return state

    def _restore(self, state: State, document: dict[str, Any]) -> None:
        before, now = _config_of(document), self._config.model_dump(mode="json")
        changed = sorted(key for key in now.keys() | before.keys() if before.get(key) != now.get(key))
        if not_allowed := [key for key in changed if key not in MAY_CHANGE]:
            raise TrainingFailed(
                "checkpoint_mismatch",
                f"the checkpoint was trained with another {', '.join(not_allowed)}; start a new run",
            )
        if document["data_sha256"] != self._data.sha256:
            raise TrainingFailed("checkpoint_mismatch", "the checkpoint was trained on other data; start a new run")
        state.restore(document)
        if "budget" in changed:
            state.examples_total = None  # what the old budget came to no longer counts
        self._saved_at = state.examples_seen
        self._log.count_from(document["elapsed_seconds"])
        if document["fingerprint"] != self._engine.fingerprint:
            self._log.write(
                "warning",
                state.examples_seen,
                code="engine_changed",
                message="This run goes on under another engine: its result will differ in the last bits from an undisturbed run.",
                before=document["fingerprint"],
                now=self._engine.fingerprint,
            )

    def started(self, state: State, timetable: Timetable) -> None:
        """Say what begins; a fresh run shows its first grid."""
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
            resumed=state.examples_seen > 0,
        )
        if state.examples_seen == 0:
            self._grid(state)
        self._began = self._ticked = (state.examples_seen, time.monotonic())

    def tick(self, state: State, timetable: Timetable) -> Timetable:
        """After each step: do what is due. Returns the timetable, whose end a budget in seconds may just have found.

        Raises TrainingFailed when training diverged.
        """
        seen = state.examples_seen
        if seen % timetable.tick == 0:
            timetable = self._probe(state, timetable)
        ends = timetable.complete(seen)
        tick, grid, save = (
            ends or seen % every == 0 for every in (timetable.tick, timetable.grid, timetable.checkpoint)
        )
        if not (tick or grid or save):
            return timetable
        self._check_finite(state)
        if tick:
            self._metrics(state, timetable)
        if grid:
            self._grid(state)
        if save:
            self._checkpoint(state)
        return timetable

    def ended(self, state: State, timetable: Timetable) -> None:
        """The last line of a run that did not fail; one that was stopped saves its state first."""
        if timetable.complete(state.examples_seen):
            self._log.write("finished", state.examples_seen)
            return
        if state.examples_seen > self._saved_at:
            self._check_finite(state)
            self._checkpoint(state)
        self._log.write("stopped", state.examples_seen)

    def _probe(self, state: State, timetable: Timetable) -> Timetable:
        """Freeze the end of a budget in seconds once the speed is known. The first tick is not typical: it only starts the clock."""
        budget, now = self._config.budget.seconds, (state.examples_seen, time.monotonic())
        if timetable.total is not None or budget is None:
            return timetable
        if self._warm is None:
            self._warm = now
            return timetable
        speed = _rate(self._warm, now)
        state.examples_total = probed_total(budget, self._log.elapsed_seconds, state.examples_seen, speed)
        return make_timetable(self._config, self._data.spec.examples, state.examples_total)

    def _metrics(self, state: State, timetable: Timetable) -> None:
        now = (state.examples_seen, time.monotonic())
        overall = _rate(self._began, now)
        self._log.write(
            "metrics",
            state.examples_seen,
            **state.statistics.means(),
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

    def _checkpoint(self, state: State) -> None:
        saved = checkpoint.save(
            self._run_dir / "checkpoints",
            state.examples_seen,
            state.document()
            | {
                "config": self._config.model_dump(mode="json"),
                "data_sha256": self._data.sha256,
                "fingerprint": self._engine.fingerprint,
                "elapsed_seconds": self._log.elapsed_seconds,
            },
            state.G_ema.state_dict(),
            self._manifest(state),
        )
        self._saved_at = state.examples_seen
        path = str(saved.folder.relative_to(self._run_dir))
        self._log.write("checkpoint", state.examples_seen, path=path, sha256=saved.sha256, size=saved.size, kid=None)

    def _manifest(self, state: State) -> dict[str, Any]:
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
            "metrics": {"kid": None},
            "fingerprint": self._engine.fingerprint,
        }

    def _check_finite(self, state: State) -> None:
        if state.is_finite():
            return
        adam = self._config.optimizer
        message = (
            f"Training diverged: after {state.examples_seen:,} examples the networks no longer hold finite numbers."
            f" Lower the learning rates (generator {adam.generator_lr:g}, discriminator {adam.discriminator_lr:g}),"
            f" raise penalties.r1_gamma (now {self._config.penalties.r1_gamma:g}), or try another seed."
        )
        self._log.write("verdict", state.examples_seen, verdict="diverged", message=message)
        raise TrainingFailed("diverged", message)


def _config_of(document: dict[str, Any]) -> dict[str, Any]:
    """The config of a checkpoint, with the defaults of fields that are newer than it. Raises TrainingFailed."""
    try:
        return catalog.parse_config(document["config"]).model_dump(mode="json")
    except ConfigError as error:
        message = f"the checkpoint's config is none of this release: {error}; start a new run"
        raise TrainingFailed("checkpoint_mismatch", message) from error


def _rate(before: tuple[int, float], now: tuple[int, float]) -> float:
    """Examples per second between two (examples, seconds)."""
    return (now[0] - before[0]) / max(now[1] - before[1], 1e-9)
