"""What references to models mean, remembered for less than a second, so that requests for samples need no database.

What this process writes counts at once: whatever it may have been, all is forgotten. What others write counts within
`LASTING_SECONDS`, since that long ago at most the answer was read.
"""

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from app import registry
from app.db import Database
from app.errors import GanvilError
from app.registry import Resolved

LASTING_SECONDS = 0.9
AGEING_SECONDS = 0.4  # from then on it is read again beside the requests, so that none of them has to wait for it
MOST = 10_000  # references


@dataclass(frozen=True)
class Known:
    """What a reference meant at a time, in a state of the database."""

    resolved: Resolved
    read_at: float  # by time.monotonic(), when reading began
    state: object


class References:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._reading: dict[str, asyncio.Task[None]] = {}

    def peek(self, ref: str) -> Resolved | None:
        """What `ref` means, if that was asked lately."""
        known = self._known.get(ref)
        if known is None or known.state is not self._database.state:
            return None
        age = time.monotonic() - known.read_at
        if age > LASTING_SECONDS:
            return None
        if age > AGEING_SECONDS and ref not in self._reading:
            self._reading[ref] = asyncio.create_task(self._read_again(ref))
        return known.resolved

    async def resolve(self, ref: str) -> Resolved:
        """What `ref` means now; no connection is held afterwards. Raises NotFound, Gone, InvalidState."""
        return self.peek(ref) or await self._read(ref)

    async def _read(self, ref: str) -> Resolved:
        known = await run_in_threadpool(self._look_up, ref)
        self._known[ref] = known
        self._known.move_to_end(ref)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return known.resolved

    async def _read_again(self, ref: str) -> None:
        try:
            with suppress(GanvilError):  # whoever asks next is told
                await self._read(ref)
        finally:
            del self._reading[ref]

    def _look_up(self, ref: str) -> Known:
        state, read_at = self._database.state, time.monotonic()
        with self._database.reading() as session:
            return Known(registry.resolve(session, ref), read_at, state)
