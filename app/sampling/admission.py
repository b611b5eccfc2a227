"""Who is let in to wait for samples, and what the others are told."""

import math
from collections.abc import Callable

from app.errors import Busy


class Place:
    """A request that waits for `left` more samples."""

    def __init__(self, n: int) -> None:
        self.left = n


class Admission:
    """A bounded queue. `limit` is the most samples that may wait, `pace` the seconds that one takes, lately.

    A request that would surely come too late is refused at once, and says when there will be room: that is worth more to its client,
    and to those who wait already, than an answer that nobody waits for any more.
    """

    def __init__(self, limit: int, wait_seconds: float, pace: Callable[[], float]) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._pace = pace
        self._places: set[Place] = set()
        self.waiting = 0  # samples that were let in and not yet handed over

    def enter(self, n: int, deadline_seconds: float | None) -> Place:
        """A place for n samples, wanted within so many seconds. Raises Busy."""
        if self._places:  # alone, a request may be larger than the queue
            self._refuse_surplus(n)
            self._refuse_late(n, deadline_seconds)
        place = Place(n)
        self._places.add(place)
        self.waiting += n
        return place

    def served(self, place: Place, n: int) -> None:
        """So many of its samples were handed over."""
        place.left -= n
        self.waiting -= n

    def leave(self, place: Place) -> None:
        """It waits no more."""
        self._places.discard(place)
        self.waiting -= place.left

    def _refuse_surplus(self, n: int) -> None:
        surplus = self.waiting + n - self._limit
        if surplus > 0:
            raise _busy(f"{self.waiting} samples wait already", surplus * self._pace())

    def _refuse_late(self, n: int, deadline_seconds: float | None) -> None:
        """Rows are shared equally: by the time that it has its n samples, each of the others has had as many at most."""
        ahead = len(self._places) if n == 1 else sum(min(place.left, n) for place in self._places)
        last = self._pace() * ahead
        allowed = self._wait_seconds if deadline_seconds is None else deadline_seconds - self._pace() * n
        if last > allowed:
            raise _busy(f"Its turn would come in {last:.2g} s, which is too late", last - allowed)


def _busy(reason: str, seconds: float) -> Busy:
    rounded = max(1, math.ceil(seconds))
    return Busy(f"{reason}: try again in {rounded} s.", headers={"Retry-After": str(rounded)})
