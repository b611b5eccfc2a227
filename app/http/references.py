"""What references to models mean, remembered for less than a second, so that requests for samples need no database.

What this process writes counts at once: whatever it may have been, all is forgotten (a sweep that moved no job excepted, for it
changes nothing that a reference means). Those who ask for the same together share one look-up. What others write counts within
`LASTING_SECONDS`, since that long ago at most the answer was read.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from fastapi.concurrency import run_in_threadpool

from app import registry
from app.db import Database
from app.registry import Resolved

LASTING_SECONDS = 0.9
AGEING_SECONDS = 0.4  # from then on it is read again beside the requests, so that none of them has to wait for it
MOST = 10_000  # references


@dataclass(frozen=True)
class Known:
    """What a reference meant at a time, in a state of the database."""

    resolved: Resolved
    read_at: float  # by time.monotonic(), before reading began
    state: object


@dataclass(frozen=True)
class Reading:
    """A look-up under way, which serves all who ask for the same meanwhile."""

    task: asyncio.Task[Resolved]
    read_at: float
    state: object


class References:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._reading: dict[str, Reading] = {}  # the last one of each reference

    def peek(self, ref: str) -> Resolved | None:
        """What `ref` means, if that was asked lately."""
        known = self._known.get(ref)
        if known is None or not self._counts(known):
            return None
        if time.monotonic() - known.read_at > AGEING_SECONDS:
            self._read(ref)
        return known.resolved

    async def resolve(self, ref: str) -> Resolved:
        """What `ref` means now; no connection is held afterwards. Raises NotFound, Gone, InvalidState."""
        known = self.peek(ref)
        if known is not None:
            return known
        return await asyncio.shield(self._read(ref))  # who leaves does not end it for the others

    def _counts(self, answer: Known | Reading) -> bool:
        """Whether it is new enough for who asks now."""
        return answer.state is self._database.state and time.monotonic() - answer.read_at <= LASTING_SECONDS

    def _read(self, ref: str) -> asyncio.Task[Resolved]:
        """The look-up under way, or a new one where there is none that counts."""
        reading = self._reading.get(ref)
        if reading is None or not self._counts(reading):
            state, read_at = self._database.state, time.monotonic()
            task = asyncio.create_task(run_in_threadpool(self._look_up, ref))
            reading = self._reading[ref] = Reading(task, read_at, state)
            task.add_done_callback(partial(self._keep, ref, reading))
        return reading.task

    def _keep(self, ref: str, reading: Reading, task: asyncio.Task[Resolved]) -> None:
        """Remember what it gave, unless another was begun since."""
        failed = task.cancelled() or task.exception() is not None  # of which those who wait are told
        if self._reading.get(ref) is not reading:
            return
        del self._reading[ref]
        if failed:
            return
        self._known[ref] = Known(task.result(), reading.read_at, reading.state)
        self._known.move_to_end(ref)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def _look_up(self, ref: str) -> Resolved:
        with self._database.reading() as session:
            return registry.resolve(session, ref)
