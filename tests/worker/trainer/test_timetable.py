"""When things happen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.runs import config
from worker.trainer.timetable import (
    CHECKPOINTS,
    MOST_CHECKPOINTS,
    MOST_GRIDS,
    MOST_TICKS,
    make_timetable,
    probed_total,
)


@given(st.integers(1, 10**9), st.integers(1, 64))
def test_everything_falls_on_whole_batches(examples: int, batch_size: int) -> None:
    """The total is the budget rounded up to a batch, the intervals are multiples of one."""
    timetable = make_timetable(config(budget={"examples": examples}, schedule={}, batch_size=batch_size), 100)
    assert 0 <= timetable.total - examples < batch_size
    for interval in (timetable.tick, timetable.grid, timetable.checkpoint):
        assert interval > 0
        assert interval % batch_size == 0


def test_long_runs_are_looked_at_no_less_often() -> None:
    """A long run still saves every so many examples, so that a crash loses little."""
    timetable = make_timetable(config(budget={"examples": 10**8}, schedule={}), 100)
    assert (timetable.tick, timetable.grid, timetable.checkpoint) == (25_000, 250_000, 100_000)


def test_a_budget_in_seconds_has_no_end_before_it_was_probed() -> None:
    """Until then nothing is complete; afterwards the frozen total counts."""
    seconds = config(budget={"seconds": 60}, schedule={})
    assert make_timetable(seconds, 100).total is None
    assert not make_timetable(seconds, 100).complete(10**12)
    assert make_timetable(seconds, 100, found=799).total == 800


@pytest.mark.parametrize(
    ("seconds", "elapsed", "probed", "seen", "speed", "total"),
    [(100, 9, 4.9, 4_000, 1000, None), (100, 9, 5, 4_000, 1000, 95_000), (2, 0.4, 0.1, 10, 50, None), (2, 0.5, 0.3, 10, 50, 85),
     (1, 9, 0, 800, 100, 800)],
)  # fmt: skip
def test_the_probe_extrapolates_the_speed(
    seconds: float, elapsed: float, probed: float, seen: int, speed: float, total: int | None
) -> None:
    """After a twentieth to a tenth of the time, what is left is filled at the speed of now; where none is left, it ends."""
    assert probed_total(seconds, elapsed, probed, seen, speed) == total


def test_a_schedule_cannot_fill_the_disk() -> None:
    """However close a schedule asks for, a run makes a bounded number of ticks, grids, checkpoints and evaluations."""
    asked = {"tick": 1, "grid": 1, "checkpoint": 1, "evaluation": 1}
    timetable = make_timetable(config(budget={"examples": 10**9}, schedule=asked), 100)
    counts = [10**9 / every for every in (timetable.tick, timetable.grid, timetable.checkpoint, timetable.evaluation)]
    assert counts[0] <= MOST_TICKS
    assert counts[1] <= MOST_GRIDS
    assert counts[2] <= MOST_CHECKPOINTS
    assert counts[3] <= MOST_CHECKPOINTS


@pytest.mark.parametrize(("size", "most"), [(2**20, MOST_CHECKPOINTS), (2**27, 80), (2**40, CHECKPOINTS)])
def test_large_generators_are_saved_less_often(size: int, most: int) -> None:
    """All checkpoints together take a bounded part of the disk; ten there may be."""
    asked = config(budget={"examples": 10**6}, schedule={"checkpoint": 1})
    timetable = make_timetable(asked, 100, generator_bytes=size)
    assert 0.9 * most <= 10**6 / timetable.checkpoint <= most


@pytest.mark.parametrize("evaluation", [None, 8])
def test_a_later_end_keeps_the_bounds(evaluation: int | None) -> None:
    """What a budget in seconds comes to may grow a hundredfold: what happens keeps to its rhythm, and is thinned."""
    asked = {"tick": 8, "grid": 8, "checkpoint": 8, "evaluation": evaluation}
    before = make_timetable(config(budget={"seconds": 60}, schedule=asked, evaluation={"samples": 8}), 100, found=4_000)
    after = before.ending(10**7, 8)
    for name, most in (("tick", MOST_TICKS), ("grid", MOST_GRIDS), ("checkpoint", 1_000), ("evaluation", 1_000)):
        assert getattr(after, name) % getattr(before, name) == 0
        assert 0.5 * most <= after.total / getattr(after, name) <= most or name == "evaluation"
    assert after.evaluation % after.checkpoint == 0
    assert before.ending(4_800, 8) == replace(before, total=4_800)
