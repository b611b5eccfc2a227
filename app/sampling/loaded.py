"""A generator in memory, and the cache of those that were used last."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from app.errors import TooHeavy
from app.registry import Resolved
from app.sampling.shapes import Shapes
from models.randomness import sample_classes

Labels = NDArray[np.int64] | NDArray[np.float32]  # [n] class indices, or [n, n_classes] mixtures

MOST_TOO_HEAVY = 1_000  # models that are remembered


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


class GeneratorCache:
    """The generators that were used last, up to a number of bytes. Belongs to one event loop.

    A model loads once however many ask at the same time; a load that fails is forgotten, so that the next request tries again,
    unless the model was too heavy. What is `pinned` (SHA-256 of weights) stays, even beyond the limit.
    """

    def __init__(self, load: Callable[[Resolved], Loaded], executor: Executor, limit_bytes: int) -> None:
        self._load_blocking = load
        self._executor = executor
        self.limit_bytes = limit_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._mixing: WeakKeyDictionary[Loaded, asyncio.Task[Loaded]] = WeakKeyDictionary()
        self._too_heavy: OrderedDict[str, str] = OrderedDict()  # why, of those that were asked for last
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
        """The generator, loaded when it is not here. Raises what loading raises: Gone, TooHeavy, Unavailable."""
        key = resolved.sha256
        if key in self._too_heavy:
            raise TooHeavy(self._too_heavy[key])
        if (found := self.peek(key)) is not None:
            return found
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._load(resolved))
            self._loading[key].add_done_callback(_retrieve)
        return await asyncio.shield(self._loading[key])  # one who gives up does not stop it for the others

    async def get_mixing(self, resolved: Resolved) -> Loaded:
        """The same generator for rows whose labels are mixtures of classes, verified when it is first asked for."""
        loaded = await self.get(resolved)
        if loaded not in self._mixing:
            self._mixing[loaded] = asyncio.create_task(self._run(loaded.mixing))
            self._mixing[loaded].add_done_callback(_retrieve)
        return await asyncio.shield(self._mixing[loaded])

    async def _run(self, function: Callable[[], Loaded]) -> Loaded:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def _load(self, resolved: Resolved) -> Loaded:
        try:
            loaded = await self._run(partial(self._load_blocking, resolved))
        except TooHeavy as error:
            self._too_heavy[resolved.sha256] = error.detail
            while len(self._too_heavy) > MOST_TOO_HEAVY:
                self._too_heavy.popitem(last=False)
            raise
        else:
            self._loaded[resolved.sha256] = loaded
            self._evict(resolved.sha256)
            return loaded
        finally:
            del self._loading[resolved.sha256]

    def _evict(self, newest: str) -> None:
        """Drop those unused for longest; the newest stays, whatever its size."""
        sizes = self.sizes()
        excess = sum(sizes.values()) - self.limit_bytes
        for sha256, size in sizes.items():
            if excess <= 0:
                return
            if sha256 != newest and sha256 not in self.pinned:
                del self._loaded[sha256]
                excess -= size


def _retrieve(task: "asyncio.Task[Loaded]") -> None:
    """Look at the outcome, which nobody else does when all who asked have gone."""
    if not task.cancelled():
        task.exception()
