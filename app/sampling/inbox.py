"""Where a request waits for its rows."""

import asyncio
import math
import time
from collections.abc import Awaitable
from typing import TypeVar

from app.errors import DeadlineExceeded
from app.sampling.admission import Place
from app.sampling.scheduling import Rows

T = TypeVar("T")


class Inbox:
    """Rows arrive in any order, as encoders finish, and are taken in theirs: `taken` so far. Belongs to the event loop that runs now.

    What arrives is told to the request's place in the queue, and a failure as all that was left.
    After `deadline_seconds` from now taking raises DeadlineExceeded, whatever has come. `close()` when done.
    """

    def __init__(self, place: Place, deadline_seconds: float | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.expires = math.inf  # by time.monotonic()
        self._deadline_seconds = deadline_seconds
        self._timer: asyncio.TimerHandle | None = None
        if deadline_seconds is not None:
            self.expires = time.monotonic() + deadline_seconds
            self._timer = self.loop.call_later(deadline_seconds, self._expire)
        self._arrived: dict[int, Rows] = {}
        self._place = place
        self.taken = 0
        self._error: BaseException | None = None
        self._news: asyncio.Future[None] | None = None

    async def unless_late(self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises DeadlineExceeded when it takes too long."""
        if self._timer is None:
            return await work
        try:
            async with asyncio.timeout(max(0, self.expires - time.monotonic())):
                return await work
        except TimeoutError as error:
            raise self._late() from error

    def put(self, outcome: Rows | BaseException) -> None:
        """Called in the loop."""
        if isinstance(outcome, BaseException):
            self._error = outcome
            self._place.fail()
        else:
            self._arrived[outcome.start] = outcome
            self._place.arrived(len(outcome.images))
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def take(self) -> Rows:
        """The next rows in order. Raises what their making raised."""
        while self._error is not None or self.taken not in self._arrived:
            if self._error is not None:
                raise self._error
            self._news = self.loop.create_future()
            await self._news
        rows = self._arrived.pop(self.taken)
        self.taken += len(rows.images)
        return rows

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.put(self._late())

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"It was not done within the {self._deadline_seconds:g} s that the request allowed.")
