"""Samples from loaded generators, in batches. A seed is an address: the same request gives the same bytes.

The way of a request: a place in the queue (or Busy), its generator from the cache (`loaded`), its rows in one or more forwards
(`scheduling`, run one by one), each forward at a shape that was verified for this model (`shapes`), encoding on a thread pool
beside the next forward. Torch comes in with `engine`, when the first sample is asked for.
"""

import asyncio
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import Busy, Unavailable
from app.formats import Format
from app.registry import Resolved
from app.sampling import engine
from app.sampling.loaded import GeneratorCache, Loaded
from app.sampling.scheduling import Batch, FairQueue, Rows, Work
from app.sampling.snapshots import snapshot_folder
from app.settings import Settings
from app.storage import Storage
from models.pictures import tile

LOADERS = 2  # one slow fetch does not hold up every other model
ENCODE_TOGETHER = 16  # samples that one encoder thread takes at a time
PACE_MEMORY = 0.9  # of the moving average of seconds per sample


@dataclass(frozen=True)
class Samples:
    """uint8 [n, H, W, C] images with the seed and, for conditional models, the class index of each."""

    images: NDArray[np.uint8]
    seeds: Sequence[int]
    labels: Sequence[int] | None

    def __len__(self) -> int:
        return len(self.seeds)


class Sampler:
    """Serves one event loop. `close()` when done; nothing starts, and no torch is loaded, before the first sample."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._queue = FairQueue()
        self._thread: threading.Thread | None = None
        threads = settings.sampler_threads
        # An executor, though they are run one by one: it hands over whatever they raise.
        self._forwards = ThreadPoolExecutor(1, "forward", engine.start_thread, (threads,))
        self._loaders = ThreadPoolExecutor(LOADERS, "loader", engine.start_thread, (threads,))
        self._encoders = ThreadPoolExecutor(os.cpu_count(), "encoder")
        self._cache = GeneratorCache(self._load, self._loaders, settings.sampler_memory_bytes)
        self._waiting = 0  # samples that were let in and not yet handed over
        self._pace = 0.0  # seconds per sample, lately
        self._digest: str | None = None
        self._closed = False

    async def generate(
        self, resolved: Resolved, seeds: Sequence[int], labels: Sequence[int] | None = None, truncation: float = 1.0
    ) -> Samples:
        """All samples at once; see `stream`."""
        async with aclosing(self.stream(resolved, seeds, labels, truncation)) as parts:
            made = [part async for part in parts]
        if len(made) == 1:
            return made[0]
        together = None if made[0].labels is None else [label for part in made for label in part.labels or ()]
        return Samples(np.concatenate([part.images for part in made]), seeds, together)

    async def stream(
        self, resolved: Resolved, seeds: Sequence[int], labels: Sequence[int] | None = None, truncation: float = 1.0
    ) -> AsyncGenerator[Samples, None]:
        """The samples of at least one seed, in order, in parts as they are made.

        `labels` are class indices in range, one a seed; without them a conditional model takes each seed's own. Raises Busy,
        Gone and Unavailable; a network's own mistake comes through as it is. Leaving early (or being cancelled) gives the place
        in the queue back.
        """
        left = len(seeds)
        self._admit(left)
        work: Work | None = None
        try:
            model = await self._cache.get(resolved)
            parts: asyncio.Queue[Rows | BaseException] = asyncio.Queue()
            work = _work(model, seeds, labels, truncation, _deliver_to(parts))
            self._start(work)
            while left:
                rows = await parts.get()
                if isinstance(rows, BaseException):
                    raise rows
                done, n = len(seeds) - left, len(rows.images)
                left -= n
                self._waiting -= n
                own = None if rows.labels is None else rows.labels.tolist()
                yield Samples(rows.images, seeds[done : done + n], own)
        finally:
            self._waiting -= left
            if work is not None and left:
                self._queue.withdraw(work)

    async def encode(self, images: NDArray[np.uint8], format: Format) -> list[bytes]:  # noqa: A002
        """Each of uint8 [n, H, W, C] in this format, on the encoder threads."""
        loop = asyncio.get_running_loop()
        groups = [images[start : start + ENCODE_TOGETHER] for start in range(0, len(images), ENCODE_TOGETHER)]
        done = await asyncio.gather(*(loop.run_in_executor(self._encoders, _encode, group, format) for group in groups))
        return [data for group in done for data in group]

    async def encode_grid(
        self,
        images: NDArray[np.uint8],
        columns: int,
        format: Format,  # noqa: A002
        scale: int = 1,
    ) -> bytes:
        """All of uint8 [n, H, W, C] in one picture, on an encoder thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._encoders, lambda: format.encode(tile(images, columns, scale=scale))
        )

    async def etag(self, resolved: Resolved, format: Format, *request: object) -> str:  # noqa: A002
        """A strong entity tag (quoted) of what `request` (seed, class, truncation, ... as JSON values) gives, without making it."""
        if self._digest is None:
            threads = self._settings.sampler_threads
            run = asyncio.get_running_loop().run_in_executor
            self._digest = await run(self._loaders, engine.digest, threads)
        content = [resolved.sha256, format.name, format.encoder, self._digest, *request]
        return f'"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]}"'

    def close(self) -> None:
        """Stop the threads. Requests that still wait get Unavailable."""
        self._closed = True
        for work in self._queue.close():
            work.deliver(_shutting_down())
        if self._thread is not None:
            self._thread.join()
        self._forwards.shutdown()
        self._loaders.shutdown(cancel_futures=True)
        self._encoders.shutdown()

    def _admit(self, n: int) -> None:
        if self._closed:
            raise _shutting_down()
        limit = self._settings.sampler_queue_images
        if self._waiting and self._waiting + n > limit:  # alone, a request may be larger than the queue
            seconds = max(1, math.ceil((self._waiting + n - limit) * self._pace))
            detail = f"{self._waiting} samples wait already: try again in {seconds} s."
            raise Busy(detail, headers={"Retry-After": str(seconds)})
        self._waiting += n

    def _start(self, work: Work) -> None:
        if not self._queue.put(work):
            raise _shutting_down()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
            self._thread.start()

    def _load(self, resolved: Resolved) -> Loaded:
        with snapshot_folder(self._storage, resolved) as folder:
            return engine.load(folder, resolved)

    def _run(self) -> None:
        """Whatever stops a forward (no memory, a network's own mistake) fails the requests of that batch alone."""
        while (batch := self._queue.take()) is not None:
            begun = time.perf_counter()
            forward = self._forwards.submit(_forward, batch)
            error = forward.exception()
            outcomes: Sequence[Rows | BaseException] = forward.result() if error is None else [error] * len(batch.parts)
            for part, outcome in zip(batch.parts, outcomes, strict=True):
                part.work.deliver(outcome)
            pace = (time.perf_counter() - begun) / batch.rows
            self._pace = PACE_MEMORY * self._pace + (1 - PACE_MEMORY) * pace if self._pace else pace


def _work(
    model: Loaded,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    truncation: float,
    deliver: Callable[[Rows | BaseException], None],
) -> Work:
    asked = None if labels is None else np.asarray(labels, np.int64)
    return Work(model, seeds, asked, truncation, deliver)


def _deliver_to(parts: "asyncio.Queue[Rows | BaseException]") -> Callable[[Rows | BaseException], None]:
    """Called on any thread, hands over on this event loop."""
    loop = asyncio.get_running_loop()

    def deliver(outcome: Rows | BaseException) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(parts.put_nowait, outcome)

    return deliver


def _forward(batch: Batch) -> Sequence[Rows]:
    """What each part of the batch gets. Raises Unavailable when memory is short."""
    with engine.short_memory_refused():
        return batch.run()


def _encode(images: NDArray[np.uint8], format: Format) -> list[bytes]:  # noqa: A002
    return [format.encode(image) for image in images]


def _shutting_down() -> Unavailable:
    return Unavailable("The service is shutting down.")
