"""A generator in memory, and the cache of those that were used last."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import TooHeavy
from app.registry import Resolved
from app.sampling.shapes import Shapes
from models.randomness import sample_classes

MOST_TOO_HEAVY = 1_000  # models that are remembered


class Generator(Protocol):
    """What `models.generator.load_generator` gives."""

    nbytes: int

    def generate(self, z: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.uint8]: ...


@dataclass(eq=False, frozen=True)
class Loaded:
    """A generator and the batch shapes that were verified for it."""

    generator: Generator
    latents: Callable[[Sequence[int], NDArray[np.float32]], NDArray[np.float32]]  # seeds, truncation -> z
    n_classes: int  # 0 when unconditional
    shapes: Shapes

    def labels(self, seeds: Sequence[int], asked: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The class of each row: the one asked for or, where that is -1, the seed's own. None for an unconditional model."""
        if not self.n_classes:
            return None
        if (asked >= 0).all():
            return asked
        return np.where(asked >= 0, asked, sample_classes(seeds, self.n_classes))

    def generate(
        self, seeds: Sequence[int], labels: NDArray[np.int64] | None, truncation: NDArray[np.float32], shape: int
    ) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] for n rows, run as one forward of `shape` rows."""
        n = len(seeds)
        z = self.latents(seeds, truncation)
        if n < shape:
            z = np.concatenate([z, np.zeros((shape - n, z.shape[1]), np.float32)])
            labels = None if labels is None else np.concatenate([labels, np.zeros(shape - n, np.int64)])
        return self.generator.generate(z, labels)[:n]


class GeneratorCache:
    """The generators that were used last, up to a number of bytes. Belongs to one event loop.

    A model loads once however many ask at the same time; a load that fails is forgotten, so that the next request tries again,
    unless the model was too heavy.
    """

    def __init__(self, load: Callable[[Resolved], Loaded], executor: Executor, limit_bytes: int) -> None:
        self._load_blocking = load
        self._executor = executor
        self._limit = limit_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._too_heavy: OrderedDict[str, str] = OrderedDict()  # why, of those that were asked for last

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._loaded

    async def get(self, resolved: Resolved) -> Loaded:
        """The generator, loaded when it is not here. Raises what loading raises: Gone, TooHeavy, Unavailable."""
        key = resolved.sha256
        if key in self._too_heavy:
            raise TooHeavy(self._too_heavy[key])
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._load(resolved))
            self._loading[key].add_done_callback(_retrieve)
        return await asyncio.shield(self._loading[key])  # one who gives up does not stop it for the others

    async def _load(self, resolved: Resolved) -> Loaded:
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._executor, self._load_blocking, resolved)
        except TooHeavy as error:
            self._too_heavy[resolved.sha256] = error.detail
            while len(self._too_heavy) > MOST_TOO_HEAVY:
                self._too_heavy.popitem(last=False)
            raise
        else:
            self._loaded[resolved.sha256] = loaded
            self._evict()
            return loaded
        finally:
            del self._loading[resolved.sha256]

    def _evict(self) -> None:
        """Drop those unused for longest; the newest stays, whatever its size."""
        while len(self._loaded) > 1 and sum(each.generator.nbytes for each in self._loaded.values()) > self._limit:
            self._loaded.popitem(last=False)


def _retrieve(task: "asyncio.Task[Loaded]") -> None:
    """Look at the outcome, which nobody else does when all who asked have gone."""
    if not task.cancelled():
        task.exception()
