"""Events as they happen: one follower per process tells every open stream when its job has news.

A stream reads its own rows, from where it is, in a short transaction, and then waits without holding one. What wakes it is a
notice in Redis; notices may be lost, so the follower also asks the database, rarely while it hears Redis and often while not.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis.asyncio
import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from app.db import Database
from app.errors import NotFound, Unavailable
from app.jobs import history
from app.queue import CHANNEL
from app.schemas.jobs import Event
from app.settings import Settings
from app.tables import ENDED

PAGE = 500
TRUST = 5  # how much more rarely the database is asked while Redis tells the news

log = structlog.get_logger(__name__)


class Stretch(NamedTuple):
    """The next events of a job: `position` is the seq to go on after, `more` that there is more now, `over` that none will come."""

    events: list[Event]
    position: int
    more: bool
    over: bool


class Follower:
    """Wakes streams. Lives in one event loop, from `start` to `stop`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._hears_redis = False
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Called in the event loop."""
        self._tasks = [asyncio.create_task(self._ask_database())]
        if self._settings.redis_url is not None:
            self._tasks.append(asyncio.create_task(self._hear_redis(self._settings.redis_url)))

    def end_streams(self) -> None:
        """Lets every stream end as if it were over; its reader comes back to the next process. Called in the event loop."""
        self._closing = True
        for job_id in list(self._waiting):
            self._wake(job_id)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stream(self, job_id: str, after: int, kinds: Collection[str] | None) -> AsyncIterator[bytes]:
        """Server-sent events of a job from the one after seq `after`, until the job has ended or is deleted, or `end_streams`."""
        with self._watching(job_id) as news:
            while not self._closing:
                news.clear()  # before reading: what comes from here on wakes us again
                try:
                    stretch = await run_in_threadpool(self.read, job_id, after, kinds)
                except NotFound:
                    return
                for event in stretch.events:
                    yield format_sse_event(data_str=event.model_dump_json(), event=event.kind, id=str(event.seq))
                after = stretch.position
                if stretch.over:
                    return
                if not stretch.more and not await _within(self._settings.ping_seconds, news):
                    yield KEEPALIVE_COMMENT

    def read(self, job_id: str, after: int, kinds: Collection[str] | None) -> Stretch:
        """Raises NotFound for a job that is no more."""
        with self._database.reading() as session:
            job = history.get(session, job_id)
            events = [Event.of(row) for row in history.events(session, job_id, after, kinds, PAGE)]
        if len(events) == PAGE:
            return Stretch(events, events[-1].seq, more=True, over=False)
        return Stretch(events, max(after, job.last_seq), more=False, over=job.status in ENDED)

    @contextmanager
    def _watching(self, job_id: str) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._waiting[job_id].add(news)
        try:
            yield news
        finally:
            self._waiting[job_id].discard(news)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def _wake(self, job_id: str) -> None:
        for news in self._waiting.get(job_id, ()):
            news.set()

    async def _hear_redis(self, url: str) -> None:
        """Listens for as long as the process lives, through every outage."""
        async with redis.asyncio.Redis.from_url(url, socket_connect_timeout=2, socket_keepalive=True) as client:
            while True:
                try:
                    async with client.pubsub(ignore_subscribe_messages=True) as channel:
                        await channel.subscribe(CHANNEL)
                        self._hears_redis = True
                        async for message in channel.listen():
                            self._wake(message["data"].decode())
                except (redis.RedisError, OSError) as error:
                    log.info("follower.deaf", error=str(error))
                finally:
                    self._hears_redis = False
                await asyncio.sleep(self._settings.follow_seconds)

    async def _ask_database(self) -> None:
        seen: dict[str, int] = {}
        while True:
            await asyncio.sleep(self._settings.follow_seconds * (TRUST if self._hears_redis else 1))
            try:
                found = await run_in_threadpool(self._positions, list(self._waiting)) if self._waiting else {}
            except Unavailable as error:
                log.info("follower.blind", error=error.detail)
                continue
            for job_id in self._waiting:
                if job_id not in found or found[job_id] != seen.get(job_id):  # deleted, or with news
                    self._wake(job_id)
            seen = found

    def _positions(self, job_ids: Collection[str]) -> dict[str, int]:
        with self._database.reading() as session:
            return history.positions(session, job_ids)


async def _within(seconds: float, news: asyncio.Event) -> bool:
    """Whether there was news in this time."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True
