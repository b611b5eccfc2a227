"""Threads beside the event loop, and what those are told who wait for them when the service stops."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from app.errors import Unavailable

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """Raises Unavailable for what comes after it was shut down."""

    closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            if not self.closed:
                raise
            raise shutting_down() from error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.closed = True
        super().shutdown(wait, cancel_futures=cancel_futures)


async def outcome_of(outcome: asyncio.Future[T]) -> T:
    """What it comes to; it goes on when this one gives up. Raises Unavailable where its threads were shut down before it had begun."""
    await asyncio.wait([outcome])
    if outcome.cancelled():  # as nothing else ends what somebody waits for
        raise shutting_down()
    return outcome.result()


def shutting_down() -> Unavailable:
    """For those who wait when the service stops."""
    return Unavailable("The service is shutting down.")
