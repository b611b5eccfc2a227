"""How far a preparation is, said now and then, and the place where it notices that it should stop."""

import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.5


class Stopped(Exception):
    """The work was asked to stop and did."""


class Progress:
    """`report(done, total)` is called at most every half second, by whoever calls `tick`; counted in images.

    Each image is passed several times, and counts in as many equal parts. `total` is 0 until it is known.
    """

    def __init__(self, report: Callable[[int, int], None], should_stop: Callable[[], bool]) -> None:
        self._report, self._should_stop = report, should_stop
        self._passed = self._total = 0
        self._passes = 1
        self._reported_at = float("-inf")

    def expect(self, total: int, passes: int) -> None:
        self._total, self._passes = total, passes

    def advance(self, passed: int) -> None:
        self._passed += passed
        self.tick()

    def tick(self) -> None:
        """Raises Stopped. Cheap enough to be called at any time, and to be called at least every half second."""
        if self._should_stop():
            raise Stopped
        if time.monotonic() - self._reported_at >= INTERVAL_SECONDS:
            self._reported_at = time.monotonic()
            self._report(self._passed // self._passes, self._total)
