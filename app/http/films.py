"""Films: to make one takes seconds, and whoever watches a job, or shows a page to many, asks for it again and again."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fastapi.concurrency import run_in_threadpool

from app.errors import Busy, DeadlineExceeded

KEPT_BYTES = 2**26  # of all films together
RETRY_SECONDS = 3
AT_ONCE = 4  # films that are being made or wait for it: the frames of each lie in memory


@dataclass(eq=False)
class Making:
    """A film that is being made for those who wait for it."""

    etag: str
    waiting: int = 0
    task: asyncio.Task[bytes] = field(init=False)


class Films:
    """Keeps the films that were made last, by ETag, as many as fit into `limit_bytes`. Belongs to one event loop.

    A film is made once for all who want it at the same time, and not for nobody: it ends when the last of them leaves.
    """

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[str, bytes] = {}  # the oldest first
        self._making: dict[str, Making] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()  # also those that everybody left and that have not ended yet
        self._encoding = asyncio.Lock()

    async def get(self, etag: str, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """The film with this ETag: the one that is kept or under way, or else what `make` gives. Raises what making raises, and Busy
        before anything is made when there are too many.
        """
        while (under_way := self._making.get(etag)) is not None:
            try:
                return await self._share(under_way)
            except (Busy, DeadlineExceeded):  # for whom it was made, which says nothing of this request
                continue
        if (kept := self._kept.get(etag)) is not None:
            return kept
        return await self._share(self._begin(etag, make))

    async def encode(self, work: Callable[[], bytes]) -> bytes:
        """What `work` gives, done on a thread, one at a time: it has all frames of a film in memory as they are shown."""
        async with self._encoding:
            encoding = asyncio.ensure_future(run_in_threadpool(work))
            try:
                return await asyncio.shield(encoding)
            finally:
                await asyncio.wait([encoding])  # a thread goes on, though nobody wants the film any more

    async def _share(self, making: Making) -> bytes:
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting:
                making.task.cancel()
                self._close(making)

    def _begin(self, etag: str, make: Callable[[], Coroutine[Any, Any, bytes]]) -> Making:
        if len(self._tasks) >= AT_ONCE:
            raise Busy(
                "Other films are being made: ask again in a moment.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        making = self._making[etag] = Making(etag)
        making.task = asyncio.create_task(self._make(making, make))
        self._tasks.add(making.task)
        making.task.add_done_callback(self._tasks.discard)
        return making

    async def _make(self, making: Making, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        try:
            film = self._kept[making.etag] = await make()
        finally:
            self._close(making)
        while sum(map(len, self._kept.values())) > self._limit_bytes:
            del self._kept[next(iter(self._kept))]
        return film

    def _close(self, making: Making) -> None:
        """Nobody can join it any more."""
        if self._making.get(making.etag) is making:
            del self._making[making.etag]
