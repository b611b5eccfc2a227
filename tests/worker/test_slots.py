import threading
from pathlib import Path

import pytest

from worker.slots import Environment, Slots, find_gpus, training_places


def never() -> None:
    """Nobody is to be rung for."""
    raise AssertionError


def test_place_works_until_nothing_is_left() -> None:
    """One ring of the bell does all that waits."""
    waiting = [1, 2, 3]
    Slots([{}], never).work(lambda _: bool(waiting) and waiting.pop() > 0)
    assert waiting == []


def test_no_more_at_once_than_places() -> None:
    """A ring that finds every place taken returns at once."""
    rings: list[str] = []
    slots, entered, leave = Slots([{}], lambda: rings.append("")), threading.Event(), threading.Event()
    runs: list[str] = []

    def long_work(_: Environment) -> bool:
        runs.append("long")
        entered.set()
        leave.wait(10)
        return False

    worker = threading.Thread(target=slots.work, args=(long_work,))
    worker.start()
    assert entered.wait(10)
    assert (slots.busy, slots.total) == (1, 1)
    slots.work(lambda _: bool(runs.append("second")))
    assert (runs, rings) == (["long"], [])
    leave.set()
    worker.join(10)
    assert (slots.busy, len(rings)) == (0, 1)


def test_ring_that_was_turned_away_is_not_lost() -> None:
    """Whoever comes after a busy place saw no more work, and is turned away, is rung for when the place is free: once."""
    busy: list[int] = []
    slots = Slots([{}], lambda: busy.append(slots.busy))

    def look(_: Environment) -> bool:  # between "none is left" and giving the place back
        slots.work(look)
        return False

    slots.work(look)
    assert busy == [0]
    slots.work(lambda _: False)
    assert busy == [0]


def test_failing_work_gives_its_place_back() -> None:
    """A task that raises leaves its place to the next, and whoever it turned away is rung for."""
    rings: list[str] = []
    slots = Slots([{}], lambda: rings.append("ring"))

    def fail(_: Environment) -> bool:
        slots.work(fail)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        slots.work(fail)
    assert (slots.busy, rings) == (0, ["ring"])


def test_several_gpus_are_shared_out(tmp_path: Path) -> None:
    """Each slot has a GPU to itself where there are several; with one or none there is nothing to choose."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert find_gpus(None, tmp_path) == ["0", "1"]
    assert find_gpus("1,3", tmp_path) == ["1", "3"]
    assert find_gpus("", tmp_path) == []
    assert training_places(3, ["0", "1"]) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")]
    assert training_places(2, ["0", "1", "2", "3"]) == [{"CUDA_VISIBLE_DEVICES": gpus} for gpus in ("0,2", "1,3")]
    assert training_places(2, ["0"]) == training_places(2, []) == [{}, {}]
