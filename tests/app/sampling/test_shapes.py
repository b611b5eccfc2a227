"""Batch shapes: only those are used at which a row's result does not depend on its company."""

import time

import numpy as np
import pytest

from app.errors import TooHeavy
from app.sampling import shapes
from app.sampling.shapes import BASE, CANDIDATES, plan, verify


def steady(numbers: np.ndarray) -> np.ndarray:
    """A network whose rows do not depend on the batch."""
    return np.sqrt(numbers.astype(np.float32) + 2)[:, None]


def last_bit(values: np.ndarray) -> np.ndarray:
    return np.nextafter(values, np.float32(np.inf))


def test_every_shape_of_a_steady_network_is_used() -> None:
    """Where all shapes agree, all are there, and a full queue is taken in the largest steps that pay."""
    found = verify(steady)
    assert found.capacity == {shape: shape for shape in CANDIDATES}
    assert found.rows == 64
    assert all(found.choose(waiting) in CANDIDATES for waiting in range(1, 200))


@pytest.mark.parametrize("bad", [shape for shape in CANDIDATES if shape != BASE])
def test_a_shape_that_differs_in_the_last_bit_is_not_used(bad: int) -> None:
    """One bit of one row at one shape is enough to leave that shape out."""

    def forward(numbers: np.ndarray) -> np.ndarray:
        output = steady(numbers)
        if len(numbers) == bad:
            output[-1] = last_bit(output[-1])
        return output

    assert set(verify(forward).capacity) == set(CANDIDATES) - {bad}


def test_one_row_alone_is_tried_with_several_rows() -> None:
    """A single row agrees by chance more easily than many: each of the first few probes must agree when it is alone."""

    def forward(numbers: np.ndarray) -> np.ndarray:
        output = steady(numbers)
        return last_bit(output) if numbers.tolist() == [BASE - 1] else output

    assert set(verify(forward).capacity) == set(CANDIDATES) - {1}


def test_places_of_the_base_shape_that_differ_stay_empty() -> None:
    """Where a row's place in the base shape matters, its first place still serves, one row at a time."""

    def forward(numbers: np.ndarray) -> np.ndarray:
        output = steady(numbers)
        output[1:] = last_bit(output[1:])
        return output

    found = verify(forward)
    assert found.capacity == {1: 1, BASE: 1}
    assert found.rows == 1


@pytest.mark.parametrize("place", range(1, BASE))
def test_one_place_that_differs_is_found(place: int) -> None:
    """One bit in one place of the base shape, and what it gives counts for nothing: its first place is compared with."""

    def forward(numbers: np.ndarray) -> np.ndarray:
        output = steady(numbers)
        if len(numbers) == BASE:
            output[place] = last_bit(output[place])
        return output

    assert verify(forward).capacity == {shape: 1 if shape == BASE else shape for shape in CANDIDATES}


@pytest.mark.parametrize(("enough_seconds", "timings"), [(1.0, shapes.TIMINGS), (0.0, 1)])
def test_loading_takes_few_forwards(monkeypatch: pytest.MonkeyPatch, enough_seconds: float, timings: int) -> None:
    """All rows of the base shape are compared with once its places agree, and what takes long is timed once."""
    monkeypatch.setattr(shapes, "TIMING_SECONDS", enough_seconds)
    calls: list[int] = []

    def forward(numbers: np.ndarray) -> np.ndarray:
        calls.append(len(numbers))
        return steady(numbers)

    verify(forward)
    wanted = dict.fromkeys(CANDIDATES, 1 + timings) | {1: BASE + timings, BASE: BASE + (64 - BASE) // BASE}
    assert {shape: calls.count(shape) for shape in CANDIDATES} == wanted


def test_not_a_number_is_compared_by_its_bits() -> None:
    """A network that diverged can still be sampled in batches."""
    assert verify(lambda numbers: np.full((len(numbers), 2), np.nan, np.float32)).rows == 64


def test_slow_networks_get_no_large_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward holds up the others for longer than the limit; the base shape is there whatever it takes."""
    monkeypatch.setattr(shapes, "LONGEST_FORWARD_SECONDS", 0.0)
    assert set(verify(steady).capacity) == {1, BASE}


def test_the_plan_is_the_cheapest_way_through() -> None:
    """Five rows go as four and one where that is cheaper than sixteen, and as sixteen where it is not."""
    capacity = {1: 1, 4: 4, 16: 16}
    linear = plan(capacity, {1: 1.0, 4: 4.0, 16: 16.0})
    assert linear[5] in {1, 4}
    assert linear[1] == 1
    flat = plan(capacity, {1: 1.0, 4: 1.0, 16: 1.0})
    assert flat[5] == 16
    assert len(plan({4: 1}, {4: 1.0})) == 2


def test_a_network_that_is_too_slow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its second forward, and with the reason: all other models would wait for each of them."""
    monkeypatch.setattr(shapes, "MOST_FORWARD_SECONDS", 0.0)
    calls: list[int] = []

    def forward(numbers: np.ndarray) -> np.ndarray:
        calls.append(len(numbers))
        return steady(numbers)

    with pytest.raises(TooHeavy, match="download it"):
        verify(forward)
    assert calls == [BASE, BASE]


def test_a_slow_first_forward_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also sets up kernels and memory: what the next one takes is what counts."""
    monkeypatch.setattr(shapes, "MOST_FORWARD_SECONDS", 0.1)
    calls: list[int] = []

    def forward(numbers: np.ndarray) -> np.ndarray:
        calls.append(len(numbers))
        until = time.thread_time() + (0.2 if len(calls) == 1 else 0.0)
        while time.thread_time() < until:
            pass
        return steady(numbers)

    assert verify(forward).rows == 64
