"""A generator in memory, and the cache of those that were used last."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from app.errors import Busy, TooHeavy
from app.registry import Resolved
from app.sampling.shapes import Shapes
from app.sampling.threads import outcome_of
from models.randomness import sample_classes

Labels = NDArray[np.int64] | NDArray[np.float32]  # [n] class indices, or [n, n_classes] mixtures

MOST_TOO_HEAVY = 1_000  # models that are remembered
MOST_RUNS = 32  # that wait for the loaders: whoever came after them would wait for long


class Generator(Protocol):
    """What `models.generator.load_generator` gives."""

    nbytes: int

    def generate(self, z: NDArray[np.float32], labels: Labels | None) -> NDArray[np.uint8]: ...


@dataclass(eq=False, frozen=True)
class Loaded:
    """A generator and the batch shapes that were verified for it."""

    generator: Generator
    draw: Callable[[Sequence[int], NDArray[np.float32]], NDArray[np.float32]]  # seeds, truncation [n] -> z [n, z_dim]
    n_classes: int  # 0 when unconditional
    shapes: Shapes
    verify_mixtures: Callable[[], Shapes] | None = None  # the shapes at which mixtures of classes may run

    def labels(self, seeds: Sequence[int], asked: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """The class of each row: the one asked for or, where that is -1, the seed's own. None for an unconditional model."""
        if not self.n_classes:
            return None
        if asked is None:
            return sample_classes(seeds, self.n_classes)
        if (asked >= 0).all():
            return asked
        return np.where(asked >= 0, asked, sample_classes(seeds, self.n_classes))

    def generate(self, z: NDArray[np.float32], labels: Labels | None, shape: int) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] for n rows, run as one forward of `shape` rows."""
        n = len(z)
        if n < shape:
            z = np.concatenate([z, np.zeros((shape - n, z.shape[1]), np.float32)])
            labels = None if labels is None else np.concatenate([labels, labels[:1].repeat(shape - n, axis=0)])
        return self.generator.generate(z, labels)[:n]

    def mixing(self) -> "Loaded":
        """The same for rows whose labels are mixtures of classes. Takes as long as loading."""
        assert self.verify_mixtures is not None, "an unconditional model has no classes"
        return replace(self, shapes=self.verify_mixtures())


class Key(NamedTuple):
    """What is loaded: a generator by the SHA-256 of its weights, and for which labels."""

    sha256: str
    labels: Literal["classes", "mixtures"]


@dataclass(eq=False)
class Run:
    """Something that the loaders do for all who wait for it."""

    future: Future[Loaded]
    outcome: asyncio.Future[Loaded]  # the same in the event loop
    waiting: int = 0


class GeneratorCache:
    """The generators that were used last, up to a number of bytes. Belongs to one event loop.

    A model loads once however many ask at the same time, and not at all when they have all gone before its turn comes. A load that
    fails is forgotten, so that the next request tries again, unless the model was too heavy. What is `pinned` (SHA-256 of weights)
    stays, even beyond the limit.
    """

    def __init__(self, load: Callable[[Resolved], Loaded], executor: Executor, limit_bytes: int) -> None:
        self._load_blocking = load
        self._executor = executor
        self.limit_bytes = limit_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._mixing: WeakKeyDictionary[Loaded, Loaded] = WeakKeyDictionary()
        self._runs: dict[Key, Run] = {}
        self._too_heavy: OrderedDict[Key, str] = OrderedDict()  # why, of those that were asked for last
        self.pinned: frozenset[str] = frozenset()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._loaded

    def sizes(self) -> dict[str, int]:
        """Bytes of each generator that is loaded now, by the SHA-256 of its weights."""
        now = list(self._loaded.items())  # in one step, because other threads ask too, and the loop goes on meanwhile
        return {sha256: loaded.generator.nbytes for sha256, loaded in now}

    def peek(self, sha256: str) -> Loaded | None:
        """The generator if it is here; using it keeps it."""
        found = self._loaded.get(sha256)
        if found is not None:
            self._loaded.move_to_end(sha256)
        return found

    async def get(self, resolved: Resolved) -> Loaded:
        """The generator, loaded when it is not here. Raises Busy, and what loading raises: Gone, TooHeavy, Unavailable."""
        if (found := self.peek(resolved.sha256)) is not None:
            return found
        return await self._run(
            Key(resolved.sha256, "classes"),
            partial(self._load_blocking, resolved),
            partial(self._keep, resolved.sha256),
        )

    async def get_mixing(self, resolved: Resolved) -> Loaded:
        """The same generator for rows whose labels are mixtures of classes, verified when it is first asked for."""
        loaded = await self.get(resolved)
        if (found := self._mixing.get(loaded)) is not None:
            return found
        return await self._run(
            Key(resolved.sha256, "mixtures"), loaded.mixing, partial(self._mixing.__setitem__, loaded)
        )

    async def _run(self, key: Key, work: Callable[[], Loaded], keep: Callable[[Loaded], None]) -> Loaded:
        """What `work` gives: begun now, or under way for others already."""
        if key in self._too_heavy:
            raise TooHeavy(self._too_heavy[key])
        run = self._runs.get(key) or self._begin(key, work, keep)
        run.waiting += 1
        try:
            return await outcome_of(run.outcome)
        finally:
            run.waiting -= 1
            if not run.waiting and run.future.cancel():  # it had not begun
                self._forget(key, run)

    def _begin(self, key: Key, work: Callable[[], Loaded], keep: Callable[[Loaded], None]) -> Run:
        if len(self._runs) >= MOST_RUNS:
            raise Busy(f"{len(self._runs)} models are waiting to be loaded: try again.", headers={"Retry-After": "1"})
        future = self._executor.submit(work)
        run = self._runs[key] = Run(future, asyncio.wrap_future(future))
        run.outcome.add_done_callback(lambda _: self._conclude(key, run, keep))
        return run

    def _conclude(self, key: Key, run: Run, keep: Callable[[Loaded], None]) -> None:
        self._forget(key, run)
        if run.outcome.cancelled():
            return
        error = run.outcome.exception()
        if error is None:
            keep(run.outcome.result())
        elif isinstance(error, TooHeavy):
            self._too_heavy[key] = error.detail
            while len(self._too_heavy) > MOST_TOO_HEAVY:
                self._too_heavy.popitem(last=False)

    def _forget(self, key: Key, run: Run) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    def _keep(self, sha256: str, loaded: Loaded) -> None:
        """Put it in, and drop those unused for longest; the newest stays, whatever its size."""
        self._loaded[sha256] = loaded
        sizes = self.sizes()
        excess = sum(sizes.values()) - self.limit_bytes
        for other, size in sizes.items():
            if excess <= 0:
                return
            if other != sha256 and other not in self.pinned:
                del self._loaded[other]
                excess -= size
