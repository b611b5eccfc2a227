"""Pinned models are loaded before anybody asks for them, and stay. So a model can be warm when its alias is moved to it, or after a
restart, and no request pays for loading it.
"""

import asyncio

import structlog
from fastapi.concurrency import run_in_threadpool

from app import registry
from app.db import Database
from app.errors import GanvilError, InUse
from app.registry import Resolved
from app.sampling import Sampler

log = structlog.get_logger(__name__)


class Keeper:
    """Looks every `seconds` what is pinned. Belongs to the event loop of the sampler."""

    def __init__(self, database: Database, sampler: Sampler, seconds: float) -> None:
        self._database = database
        self._sampler = sampler
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._failed: frozenset[str] = frozenset()  # labels that could not be loaded and of which the log tells already

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def keep(self) -> None:
        """Load what is pinned and not here, and keep no longer what was unpinned."""
        wanted = await run_in_threadpool(self._pinned)
        self._sampler.cache.pinned = frozenset(resolved.sha256 for resolved in wanted)
        failed = set()
        for resolved in wanted:
            (outcome,) = await asyncio.gather(self._sampler.cache.get(resolved), return_exceptions=True)
            if isinstance(outcome, Exception):  # whatever it is, the other models do not wait for it
                failed.add(resolved.label)
                if resolved.label not in self._failed:
                    mistake = None if isinstance(outcome, GanvilError) else outcome
                    log.warning("pinned.not_loaded", model=resolved.label, reason=str(outcome), exc_info=mistake)
        self._failed = frozenset(failed)

    async def check_room(self, resolved: Resolved) -> None:
        """Load it. Raises InUse when it does not fit beside what is pinned already, and what loading raises."""
        await self._sampler.cache.get(resolved)
        sizes = self._sampler.cache.sizes()
        pinned = sum(sizes.get(sha256, 0) for sha256 in self._sampler.cache.pinned - {resolved.sha256})
        size, limit = sizes.get(resolved.sha256, 0), self._sampler.cache.limit_bytes
        if pinned + size > limit:
            raise InUse(
                f"{resolved.label} takes {size:,} bytes, and pinned models have {pinned:,} of {limit:,} already: unpin one first, or "
                "raise GANVIL_SAMPLER_MEMORY_BYTES."
            )

    async def _run(self) -> None:
        while True:
            try:
                await self.keep()
            except GanvilError as error:  # the database is away
                log.warning("pinned.not_looked_up", reason=error.detail)
            await asyncio.sleep(self._seconds)

    def _pinned(self) -> list[Resolved]:
        found = []
        with self._database.reading() as session:
            for ref in registry.pins(session):
                try:
                    found.append(registry.resolve(session, ref))
                except GanvilError:
                    continue
        return found
