"""Samples from loaded generators, in batches. A seed is an address: the same request gives the same bytes.

The way of a request: a place in the queue (or Busy, `admission`), its generator from the cache (`loaded`), its rows in one or more
forwards (`scheduling`), each at a shape that was verified for this model (`shapes`), encoding on a thread pool beside the next
forward (`pipeline`). Torch comes in with `engine`, when the first sample is asked for.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.formats import Format
from app.provenance import Provenance
from app.registry import Resolved
from app.sampling import engine
from app.sampling.admission import Admission, Place, Sent
from app.sampling.encoding import Encoding
from app.sampling.inbox import Inbox
from app.sampling.inputs import Inputs, Latents, Seeds
from app.sampling.lag import Lag
from app.sampling.loaded import GeneratorCache, Loaded
from app.sampling.pipeline import Pipeline
from app.sampling.scheduling import FairQueue, Rows, Work
from app.sampling.snapshots import snapshot_folder
from app.sampling.threads import Threads, outcome_of, shutting_down
from app.settings import Settings
from app.storage import Storage
from app.tables import Document

__all__ = ["Encoding", "Latents", "Sampler", "Samples", "Seeds", "Sent", "picture_bytes", "sample_shape"]

T = TypeVar("T")

MOST_PROVENANCES = 1_000
LOADERS = 2  # one slow fetch does not hold up every other model


@dataclass(frozen=True)
class Samples:
    """uint8 [n, H, W, C] images with, for conditional models, the class of each; `files` where they were to be encoded.

    `labels` are class indices, or None where there are no classes or mixtures of them.
    """

    images: NDArray[np.uint8]
    labels: Sequence[int] | None
    files: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Visit:
    """A request on its way: its place in the queue, where its rows arrive, and what it waits for, once it waits."""

    place: Place
    inbox: Inbox
    work: Work | None = None


class Sampler:
    """Serves one event loop. `close()` when done; nothing starts, and no torch is loaded, before the first sample."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._storage = storage
        self._threads = settings.sampler_threads
        self._queue = FairQueue()
        self._pipeline = Pipeline(self._queue, self._threads)
        self._loaders = Threads(LOADERS, "loader", engine.start_thread, (self._threads,))
        self.cache = GeneratorCache(self._load, self._loaders, settings.sampler_memory_bytes)
        self._lag = Lag()
        self.admission = Admission(
            settings.sampler_queue_images,
            settings.sampler_queue_bytes,
            settings.sampler_wait_seconds,
            lambda: self._pipeline.pace,
            lambda: self._lag.seconds,
        )
        self._digest: str | None = None  # of the engine
        self._provenances: dict[tuple[object, ...], Provenance] = {}
        self._arrived: list[Work] = []
        self._closed = False

    async def generate(
        self, resolved: Resolved, seeds: Sequence[int], labels: Sequence[int] | None = None, truncation: float = 1.0
    ) -> Samples:
        """The samples of these seeds at once; see `stream`. `labels` are class indices in range, one a seed."""
        return await self.gather(resolved, Seeds.of(seeds, labels, truncation))

    async def gather(
        self,
        resolved: Resolved,
        inputs: Inputs,
        encoding: Encoding | None = None,
        deadline_seconds: float | None = None,
        each_bytes: int | None = None,
        sent: Sent | None = None,
    ) -> Samples:
        """All samples at once; see `stream`. `each_bytes` is what the answer will hold of each, where that is not its pixels as they are
        encoded; `sent` ends when the answer was sent: until then it lies in memory, and counts as such.
        """
        visit = self._enter(resolved, inputs, each_bytes or _each_bytes(resolved, encoding), deadline_seconds)
        try:
            await self._join(visit, resolved, inputs, encoding)
            made = [_samples(await visit.inbox.take())]
            while visit.inbox.taken < len(inputs):
                made.append(_samples(await visit.inbox.take()))
        finally:
            self._leave(visit, sent)
        return made[0] if len(made) == 1 else _together(made)

    async def stream(
        self,
        resolved: Resolved,
        inputs: Inputs,
        encoding: Encoding | None = None,
        deadline_seconds: float | None = None,
    ) -> AsyncGenerator[Samples, None]:
        """The samples of at least one row, in order, in parts as they are made.

        Raises Busy, DeadlineExceeded (where `deadline_seconds` from now are not enough, at once if that is known), Gone and
        Unavailable; a network's own mistake comes through as it is. Leaving early (or being cancelled) gives the place in the
        queue back.
        """
        visit = self._enter(resolved, inputs, _each_bytes(resolved, encoding), deadline_seconds)
        try:
            await self._join(visit, resolved, inputs, encoding)
            while visit.inbox.taken < len(inputs):
                part = _samples(await visit.inbox.take())
                yield part
                visit.place.sent(len(part))
        finally:
            self._leave(visit)

    async def beside(self, work: Callable[[], T]) -> T:
        """What `work` gives, done on a thread for what takes long. Raises Unavailable when this is closed."""
        outcome = asyncio.wrap_future(self._pipeline.slow.submit(work))
        try:
            return await outcome_of(outcome)
        finally:
            outcome.cancel()  # where it has not begun, nobody wants it any more

    async def provenance(self, resolved: Resolved, format: Format) -> Provenance:  # noqa: A002
        """Writes what samples of this model in this format say of themselves. Raises Unavailable when this is closed meanwhile."""
        key = resolved.label, resolved.sha256, format.name, format.quality
        if (found := self._provenances.get(key)) is None:
            if self._digest is None:
                digest = self._loaders.submit(engine.digest, self._threads)
                self._digest = await outcome_of(asyncio.wrap_future(digest))
            found = self._provenances[key] = Provenance(resolved, format, self._digest)
            while len(self._provenances) > MOST_PROVENANCES:
                del self._provenances[next(iter(self._provenances))]
        return found

    async def etag(self, resolved: Resolved, format: Format, *request: object) -> str:  # noqa: A002
        """A strong entity tag (quoted) of what `request` (seed, class, truncation, ... as JSON values) gives, without making it."""
        return (await self.provenance(resolved, format)).etag(*request)

    def close(self) -> None:
        """Stop the threads. Requests that still wait get Unavailable."""
        self._closed = True
        for work in self._queue.close():
            work.loop.call_soon_threadsafe(work.deliver, shutting_down())
        self._pipeline.close()
        self._loaders.shutdown(cancel_futures=True)

    def _enter(self, resolved: Resolved, inputs: Inputs, each_bytes: int, deadline_seconds: float | None) -> Visit:
        if self._closed:
            raise shutting_down()
        self._lag.look()
        least_seconds = 0.0 if deadline_seconds is None else self._least_seconds(resolved, len(inputs))
        place = self.admission.enter(len(inputs), deadline_seconds, each_bytes, least_seconds)
        return Visit(place, Inbox(place, deadline_seconds))

    def _least_seconds(self, resolved: Resolved, n: int) -> float:
        """What the forwards of n samples take when nothing else runs, by what was measured when the model was loaded; else 0."""
        model = self.cache.peek(resolved.sha256)
        if model is None:
            return 0.0
        return n * min(model.shapes.seconds[shape] / rows for shape, rows in model.shapes.capacity.items())

    async def _join(self, visit: Visit, resolved: Resolved, inputs: Inputs, encoding: Encoding | None) -> None:
        """Queue its rows, once its generator is here."""
        inbox = visit.inbox
        model = self.cache.peek(resolved.sha256)
        if model is None:
            model = await inbox.unless_late(self.cache.get(resolved))
        if isinstance(inputs, Latents) and inputs.labels is not None and inputs.labels.ndim > 1:
            model = await inbox.unless_late(self.cache.get_mixing(resolved))
        visit.work = Work(model, inputs, inbox.put, inbox.loop, encoding, inbox.expires)
        self._start(visit.work)

    def _leave(self, visit: Visit, sent: Sent | None = None) -> None:
        visit.inbox.close()
        visit.place.leave_when(sent)
        if visit.work is not None:
            visit.work.expires = -math.inf  # for encoders that have not begun
            if visit.work.left:
                self._drop(visit.work)

    def _start(self, work: Work) -> None:
        """Queue it at the end of this turn of the loop, together with all that has come in meanwhile: the generating thread, which
        takes what waits as soon as anything does, would otherwise begin with the first one alone.
        """
        if not self._arrived:
            work.loop.call_soon(self._queue_arrived)
        self._arrived.append(work)

    def _queue_arrived(self) -> None:
        works, self._arrived = self._arrived, []
        if not self._queue.put(*works):
            for work in works:
                work.deliver(shutting_down())
        elif not self._pipeline.started:
            self._pipeline.start()

    def _drop(self, work: Work) -> None:
        if work in self._arrived:
            self._arrived.remove(work)
        self._queue.withdraw(work)

    def _load(self, resolved: Resolved) -> Loaded:
        with snapshot_folder(self._storage, resolved) as folder:
            return engine.load(folder, resolved)


def _each_bytes(resolved: Resolved, encoding: Encoding | None) -> int:
    return picture_bytes(resolved, 1 if encoding is None else encoding.scale)


def _together(made: Sequence[Samples]) -> Samples:
    return Samples(
        np.concatenate([part.images for part in made]),
        None if made[0].labels is None else [label for part in made for label in part.labels or ()],
        None if made[0].files is None else [file for part in made for file in part.files or ()],
    )


def picture_bytes(resolved: Resolved, scale: int = 1) -> int:
    """Of the pixels of one sample, enlarged."""
    return math.prod(sample_shape(resolved.info, scale))


def sample_shape(info: Document, scale: int = 1) -> tuple[int, int, int]:
    """Height, width and channels of one sample of a model that makes what `info` says, enlarged."""
    return info["height"] * scale, info["width"] * scale, info["channels"]


def _samples(rows: Rows) -> Samples:
    labels = None if rows.labels is None or rows.labels.ndim > 1 else rows.labels.tolist()
    return Samples(rows.images, labels, rows.files)
