"""Who is let in to wait for samples, and what the others are told."""

import math
from collections.abc import Callable

from app.errors import Busy


class Place:
    """A request that waits for `left` more samples."""

    __slots__ = ("_admission", "left")

    def __init__(self, admission: "Admission", n: int) -> None:
        self._admission = admission
        self.left = n

    def arrived(self, n: int) -> None:
        """So many of its samples were made: whether they are fetched at once is no matter to those who wait for theirs."""
        n = min(n, self.left)
        self.left -= n
        self._admission.waiting -= n
        if not self.left:
            self._admission.waiters.discard(self)

    def leave(self) -> None:
        """It waits no more."""
        if self.left:
            self.arrived(self.left)


class Admission:
    """A bounded queue. `limit` is the most samples that may wait, `pace` the seconds that one takes, lately.

    A request that would surely come too late is refused at once, and says when there will be room: that is worth more to its client,
    and to those who wait already, than an answer that nobody waits for any more.
    """

    def __init__(self, limit: int, wait_seconds: float, pace: Callable[[], float]) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._pace = pace
        self.waiters: set[Place] = set()
        self.waiting = 0  # samples that were let in and not yet made

    def enter(self, n: int, deadline_seconds: float | None) -> Place:
        """A place for n samples, wanted within so many seconds. Raises Busy."""
        if self.waiters:  # alone, a request may be larger than the queue
            self._refuse_surplus(n)
            self._refuse_late(n, deadline_seconds)
        place = Place(self, n)
        self.waiters.add(place)
        self.waiting += n
        return place

    def _refuse_surplus(self, n: int) -> None:
        surplus = self.waiting + n - self._limit
        if surplus > 0:
            raise _busy(f"{self.waiting} samples wait already", surplus * self._pace())

    def _refuse_late(self, n: int, deadline_seconds: float | None) -> None:
        """Rows are shared equally: by the time that it has its n samples, each of the others has had as many at most."""
        ahead = len(self.waiters) if n == 1 else sum(min(place.left, n) for place in self.waiters)
        last = self._pace() * ahead
        allowed = self._wait_seconds if deadline_seconds is None else deadline_seconds - self._pace() * n
        if last > allowed:
            raise _busy(f"Its turn would come in {last:.2g} s, which is too late", last - allowed)


def _busy(reason: str, seconds: float) -> Busy:
    rounded = max(1, math.ceil(seconds))
    return Busy(f"{reason}: try again in {rounded} s.", headers={"Retry-After": str(rounded)})
