"""Who is let in to wait for samples, and what the others are told."""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

from app.errors import Busy, DeadlineExceeded
from app.sampling.scheduling import SHARES
from app.sampling.shapes import CANDIDATES

DEADLINE_SHARE = (
    0.8  # in which to be made; the rest is for what cannot be foreseen, since what comes too late was made in vain
)
TURNS = 3  # of the event loop that a request takes: to be read, to get its samples, and to be sent
LARGEST_SHARE = CANDIDATES[-1] // SHARES  # of a forward
SMALL_BYTES = 2**18  # of an answer: it leaves as soon as it is made, and the limit of samples bounds how many there are
LARGEST_PART = 1 / 2  # of the bytes that are free, for one answer: a few that nobody fetches do not shut out all others
BULK_RETRY_SECONDS = 5  # at least: when those who hold bytes will have fetched them is not known


class Place:
    """A request that waits for `left` more samples, and holds so many bytes for them until they are sent."""

    __slots__ = ("_admission", "_each_bytes", "held_bytes", "left")

    def __init__(self, admission: "Admission", n: int, each_bytes: int) -> None:
        self._admission = admission
        self._each_bytes = each_bytes
        self.held_bytes = n * each_bytes
        self.left = n

    def arrived(self, n: int) -> None:
        """So many of its samples were made: whether they are fetched at once is no matter to those who wait for theirs."""
        n = min(n, self.left)
        self.left -= n
        self._admission.waiting -= n
        if not self.left:
            self._admission.waiters.discard(self)

    def fail(self) -> None:
        """No more will be made for it."""
        self.arrived(self.left)

    def sent(self, n: int) -> None:
        """So many of its samples are in memory no more."""
        self._release(n * self._each_bytes)

    def leave(self) -> None:
        """It waits no more, and holds nothing."""
        if self.left:
            self.fail()
        self._release(self.held_bytes)

    def leave_when(self, sent: "Sent | None") -> None:
        """It waits no more, and holds what it has, unless that is little, until the end of `sent`; where there is none, nothing."""
        if sent is None or self.held_bytes <= SMALL_BYTES:
            self.leave()
        else:
            self.fail()
            sent.held.append(self)

    def _release(self, size: int) -> None:
        self.held_bytes -= size
        self._admission.held_bytes -= size


class Sent:
    """A block that ends when an answer was sent, or there will be none: what large ones hold is given back then."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: list[Place] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for place in self.held:
            place.leave()


class Admission:
    """A bounded queue. `limit` is the most samples that may wait, `limit_bytes` the most that they may come to, together with those that
    are made and not yet sent, `pace` the seconds that one takes, lately, and `lag` those of a turn of the event loop.

    A request that would surely come too late is refused at once, and says when there will be room: that is worth more to its client,
    and to those who wait already, than an answer that nobody waits for any more.
    """

    def __init__(
        self,
        limit: int,
        limit_bytes: int,
        wait_seconds: float,
        pace: Callable[[], float],
        lag: Callable[[], float] = float,
    ) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._wait_seconds = wait_seconds
        self._pace = pace
        self._lag = lag
        self.waiters: set[Place] = set()
        self.waiting = 0  # samples that were let in and not yet made
        self.held_bytes = 0  # of samples that were let in and not yet sent

    def enter(self, n: int, deadline_seconds: float | None, each_bytes: int = 0, least_seconds: float = 0.0) -> Place:
        """A place for n samples of so many bytes each, wanted within so many seconds, where making them takes `least_seconds` or more.

        Raises Busy and, where the deadline is too short for these samples whoever else waits, DeadlineExceeded.
        """
        if deadline_seconds is not None:
            self._refuse_hopeless(n, deadline_seconds, least_seconds)
        if self.waiters:  # alone, a request may be larger than the queue
            self._refuse_surplus(n)
            self._refuse_late(n, deadline_seconds)
        if self.held_bytes and n * each_bytes > SMALL_BYTES:
            self._refuse_bulk(n * each_bytes)
        place = Place(self, n, each_bytes)
        self.waiters.add(place)
        self.waiting += n
        self.held_bytes += place.held_bytes
        return place

    def _refuse_hopeless(self, n: int, deadline_seconds: float, least_seconds: float) -> None:
        """The pace counts while others wait: of one alone it may tell another model's, and nobody would be let in to show a new one."""
        own = max(least_seconds, self._pace() * n) if self.waiters else least_seconds
        if own > deadline_seconds:
            raise DeadlineExceeded(
                f"What is asked for takes {own:.2g} s here, and the request allows {deadline_seconds:g} s: ask for fewer, or allow more."
            )

    def _refuse_surplus(self, n: int) -> None:
        surplus = self.waiting + n - self._limit
        if surplus > 0:
            raise _busy(f"{self.waiting} samples wait already", surplus * self._pace())

    def _refuse_bulk(self, size: int) -> None:
        if size > LARGEST_PART * (self._limit_bytes - self.held_bytes):
            reason = f"{self.held_bytes:,} bytes of samples wait or are being fetched, too many for {size:,} more"
            raise _busy(reason, max(BULK_RETRY_SECONDS, self.waiting * self._pace()))

    def _refuse_late(self, n: int, deadline_seconds: float | None) -> None:
        """The smallest come first: by the time that it has its n samples, each of the others has had as many at most or, where so many
        wait that some stand in line for a forward, a share. Where not the generator but the event loop is what all wait for, its turns
        tell.
        """
        share = n if len(self.waiters) < CANDIDATES[-1] else max(n, LARGEST_SHARE)
        pace, lag = self._pace(), TURNS * self._lag()
        within = self._wait_seconds if deadline_seconds is None else DEADLINE_SHARE * deadline_seconds - pace * n
        allowed = within - lag
        if pace * self.waiting <= allowed:  # whoever they are
            return
        last = pace * sum(min(place.left, share) for place in self.waiters)
        if last > allowed:
            raise _busy(f"Its turn would come in {last + lag:.2g} s, which is too late", last - allowed)


def _busy(reason: str, seconds: float) -> Busy:
    rounded = max(1, math.ceil(seconds))
    return Busy(f"{reason}: try again in {rounded} s.", headers={"Retry-After": str(rounded)})
