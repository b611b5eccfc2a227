"""The batch shapes that one generator may run at: such that a row's result does not depend on the shape or its place.

A matrix product or a convolution may be summed in another order at another batch size, so that the same z gives other last bits
and now and then another pixel. Therefore forwards run at few shapes only, padded up. What a row *is*, is its result as the first
of `BASE` rows. A shape is used only when it gave those very bits, in every place, to random rows (at least `BASE` of them) when
the model was loaded. Once the other places of `BASE` rows were seen to give the same as the first, they count as much.
(On CPUs without matrix units one row was seen to agree with many for all families once their linear layers are steady, see
`models.prepared`; 1 x 1 convolutions of 16 rows and more are another kernel than those of 4.)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import TooHeavy

BASE = 4
CANDIDATES = (1, BASE, 8, 16, 32, 64)  # ascending
LONGEST_FORWARD_SECONDS = 0.25  # others wait for a forward to end: larger shapes than this are not worth it
MOST_FORWARD_SECONDS = 5.0  # of `BASE` rows; a network that takes longer is not served, or all others would wait for it
TIMINGS = 3  # of each shape, of which the least counts, for others disturb
TIMING_SECONDS = 0.02  # of a shape are enough: loading waits for them

Forward = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Shapes:
    """What was found at load: for 1 .. `rows` waiting rows, the shape to run next.

    Fewer rows are taken than the shape has where its other places did not agree with the first.
    """

    next_shape: tuple[int, ...]  # indexed by the number of waiting rows; [0] is not used
    capacity: dict[int, int]  # of a shape: rows that it can take, the rest being padding
    seconds: dict[int, float]  # of one forward, measured at load

    @property
    def rows(self) -> int:
        """The most rows that one forward takes."""
        return max(self.capacity.values())

    def choose(self, waiting: int) -> int:
        """The shape of the next forward when `waiting` rows (at least 1) wait."""
        return self.next_shape[min(waiting, len(self.next_shape) - 1)]


def verify(forward: Forward) -> Shapes:
    """Run `forward` (int64 [n] probe numbers to float32 [n, ...] outputs before rounding) at each candidate shape.

    The same probe number must stand for the same random row at every call. Raises TooHeavy for a network that is too slow.
    """
    capacity: dict[int, int] = {}
    seconds: dict[int, float] = {}
    windows = [_base_rows(forward, probe, seconds) for probe in range(BASE)]
    reference = [rows[0] for rows in windows]
    alike = all(rows[: BASE - probe] == reference[probe:] for probe, rows in enumerate(windows))
    places = BASE if alike else 1  # the first place is right by definition
    for shape in CANDIDATES:
        if shape == BASE:
            capacity[BASE] = places
            continue
        if shape > BASE and seconds[BASE] / BASE * shape > LONGEST_FORWARD_SECONDS:
            break
        while len(reference) < shape:
            reference += _base_rows(forward, len(reference), seconds)[:places]
        starts = range(0, max(shape, BASE), shape)
        rows = [row.tobytes() for start in starts for row in forward(np.arange(start, start + shape))]
        if rows == reference[: len(rows)]:
            capacity[shape] = shape
            seconds[shape] = _time(forward, shape)
    return Shapes(plan(capacity, seconds), capacity, seconds)


def _base_rows(forward: Forward, probe: int, seconds: dict[int, float]) -> list[bytes]:
    """What `BASE` rows give from this probe on, each in its place. Notes the least time that it took; raises TooHeavy."""
    output, taken = _timed(forward, probe, BASE)
    seconds[BASE] = min(seconds.get(BASE, np.inf), taken)
    if probe and seconds[BASE] > MOST_FORWARD_SECONDS:  # the very first forward also sets things up
        raise TooHeavy(
            f"This model takes {seconds[BASE]:.0f} s for {BASE} samples here, and {MOST_FORWARD_SECONDS:g} s are the most,"
            " since all others would wait for it: download it and sample elsewhere."
        )
    return [row.tobytes() for row in output]


def plan(capacity: dict[int, int], seconds: dict[int, float]) -> tuple[int, ...]:
    """For each number of waiting rows the largest shape of the cheapest way through them: while it runs, more may come."""
    cost, first = [0.0], [0]
    for waiting in range(1, max(capacity.values()) + 1):
        best = min(capacity, key=lambda shape: seconds[shape] + cost[max(0, waiting - capacity[shape])])
        rest = max(0, waiting - capacity[best])
        cost.append(seconds[best] + cost[rest])
        first.append(max(best, first[rest]))
    return tuple(first)


def _time(forward: Forward, shape: int) -> float:
    """The least of a few forwards of this shape."""
    times: list[float] = []
    while not times or (len(times) < TIMINGS and sum(times) < TIMING_SECONDS):
        times.append(_timed(forward, 0, shape)[1])
    return min(times)


def _timed(forward: Forward, probe: int, shape: int) -> tuple[NDArray[np.float32], float]:
    """So many rows from this probe on, and CPU time of this thread: what others do on this machine must not decide the plan."""
    begun = time.thread_time()
    output = forward(np.arange(probe, probe + shape))
    return output, time.thread_time() - begun
