"""When a run ends and when things happen on the way, in examples seen; everything falls on whole batches."""

from dataclasses import dataclass, replace
from typing import Self

from models.config import MAX_EXAMPLES, TrainingConfig

PROBE_BATCHES = 2  # to a tick, before the end is known
PROBE_TICK_SECONDS = 1.0  # between two that are told
PROBE_SECONDS = 5.0
PROBE_SHARE = 0.1  # of a budget in seconds that is shorter than ten probes

# Without a schedule: so many of each in a run, but no rarer than every so many examples.
TICKS, TICK_EXAMPLES = 200, 25_000
GRIDS, GRID_EXAMPLES = 40, 250_000
CHECKPOINTS, CHECKPOINT_EXAMPLES = 10, 100_000

# An evaluation takes about as long as training on as many examples as it draws samples. Without a schedule it happens with a
# checkpoint, but no oftener than every so many times the samples: that keeps it under a twentieth of the time.
EVALUATION_SAMPLES = 24
TRAINING_SHARE = 0.96  # of a budget in seconds; the rest is for evaluations, which its probe does not see

# Whatever the schedule says, a run makes no more than so many: a long one would fill disk and database.
MOST_TICKS, MOST_GRIDS, MOST_CHECKPOINTS = 10_000, 1_000, 1_000  # and as many evaluations, each with a checkpoint
MOST_KEPT = 10 * 2**30  # bytes of the generators of all checkpoints; but CHECKPOINTS there may be, of whatever size


@dataclass(frozen=True)
class Timetable:
    """`total` is None while a budget in seconds is still being probed; the intervals are multiples of the batch."""

    total: int | None
    tick: int
    grid: int
    checkpoint: int
    evaluation: int
    most_checkpoints: int = MOST_CHECKPOINTS

    def due(self, examples_seen: int, every: int) -> bool:
        """Whether what happens every so many examples happens now; at the end everything does."""
        return examples_seen % every == 0 or self.complete(examples_seen)

    def anything_due(self, examples_seen: int) -> bool:
        return any(self.due(examples_seen, every) for every in (self.tick, self.grid, self.checkpoint, self.evaluation))

    def ending(self, total: int, batch_size: int) -> Self:
        """The same with another end; of what would happen too often until then, each second, third or nth time remains."""
        total = _whole_batches(total, batch_size)
        checkpoint = _rarer(self.checkpoint, total, self.most_checkpoints)
        return replace(
            self,
            total=total,
            tick=_rarer(self.tick, total, MOST_TICKS),
            grid=_rarer(self.grid, total, MOST_GRIDS),
            checkpoint=checkpoint,
            evaluation=_rarer(self.evaluation * (checkpoint // self.checkpoint), total, self.most_checkpoints),
        )

    def complete(self, examples_seen: int) -> bool:
        return self.total is not None and examples_seen >= self.total


def make_timetable(
    config: TrainingConfig, examples: int, found: int | None = None, generator_bytes: int = 1
) -> Timetable:
    """The timetable for a data set of so many examples.

    `found` is the total that a budget in seconds came to, or that a run which had what it wanted ended at, once it did.
    """
    most_checkpoints = min(MOST_CHECKPOINTS, max(CHECKPOINTS, MOST_KEPT // generator_bytes))
    batch, schedule = config.batch_size, config.schedule
    total = config.budget.total(examples) if found is None else found

    def every(wanted: int | None, per_run: int, at_most: int, most_per_run: int) -> int:
        derived = at_most if total is None else min(max(total // per_run, 1), at_most)
        least = 0 if total is None else -(-total // most_per_run)
        return _whole_batches(max(wanted or derived, least), batch)

    checkpoint = every(schedule.checkpoint, CHECKPOINTS, CHECKPOINT_EXAMPLES, most_checkpoints)
    rarely = max(1, -(-EVALUATION_SAMPLES * config.evaluation.samples // checkpoint))
    return Timetable(
        total=None if total is None else _whole_batches(total, batch),
        tick=PROBE_BATCHES * batch if total is None else every(schedule.tick, TICKS, TICK_EXAMPLES, MOST_TICKS),
        grid=every(schedule.grid, GRIDS, GRID_EXAMPLES, MOST_GRIDS),
        checkpoint=checkpoint,
        evaluation=every(schedule.evaluation or checkpoint * rarely, 1, MAX_EXAMPLES, most_checkpoints),
        most_checkpoints=most_checkpoints,
    )


def probed_total(
    seconds: float, elapsed_seconds: float, probed_seconds: float, examples_seen: int, examples_per_second: float
) -> int | None:
    """How many examples fit into a budget of so many seconds, at this speed from now on; None while it is too early to say."""
    if elapsed_seconds < seconds and probed_seconds < min(PROBE_SECONDS, PROBE_SHARE * seconds):
        return None
    return max(1, examples_seen + round(max(0.0, seconds - elapsed_seconds) * examples_per_second))


def _rarer(every: int, total: int, most: int) -> int:
    """A multiple of `every` that is reached no more than so often, and once at the end."""
    return every * max(1, -(-total // (every * most)))


def _whole_batches(examples: int, batch_size: int) -> int:
    return -(-examples // batch_size) * batch_size
