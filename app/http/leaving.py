"""Clients that hang up: what is done for them ends, and their place in the queue becomes free."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

GRACE_SECONDS = 0.05  # a request that is answered sooner is not worth watching


class UnlessClientLeaves:
    """A block that ends when the client hangs up; `left` tells afterwards. The request's body must have been read."""

    def __init__(self, receive: Receive) -> None:
        self.left = False
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if not self.left or self._task is None:
            return False
        others = self._task.uncancel()  # who want the task to end, such as a server that stops
        return kind is asyncio.CancelledError and not others

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._task is not None:
            self._task.cancel()
