"""Who rides in the next forward. Knows neither torch nor asyncio; safe to share between threads.

Batch while busy, never wait when idle: `take` gives whatever waits, at once. Models take turns, one forward each. Within a
forward every request gets an equal share of the rows, so that one who asks for a single sample need not wait for one who asked
for a thousand; whoever was served and wants more goes to the back.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

from app.sampling.loaded import Loaded


@dataclass(frozen=True)
class Rows:
    """Some consecutive samples of one request, the next in order."""

    images: NDArray[np.uint8]  # [n, H, W, C]
    labels: NDArray[np.int64] | None  # [n]


@dataclass(eq=False)
class Work:
    """One request: its rows leave in order, in as many parts as it takes."""

    model: Loaded
    seeds: Sequence[int]
    labels: NDArray[np.int64] | None  # class indices; None: each seed decides
    truncation: float
    deliver: Callable[[Rows | BaseException], None]  # called on the thread that generates
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.seeds) - self.taken


@dataclass(frozen=True)
class Part:
    """Rows [start, stop) of a request."""

    work: Work
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, -1 where the seed decides."""
        asked = self.work.labels
        return np.full(self.rows, -1, np.int64) if asked is None else asked[self.start : self.stop]


@dataclass(frozen=True)
class Batch:
    """One forward: rows of one model, and the shape to pad them to."""

    model: Loaded
    shape: int
    parts: Sequence[Part]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def run(self) -> list[Rows]:
        """Generate, and give each part its own."""
        counts = [part.rows for part in self.parts]
        seeds = [seed for part in self.parts for seed in part.work.seeds[part.start : part.stop]]
        asked = np.concatenate([part.labels for part in self.parts])
        truncation = np.repeat(np.array([part.work.truncation for part in self.parts], np.float32), counts)
        labels = self.model.labels(seeds, asked)
        images = self.model.generate(seeds, labels, truncation, self.shape)
        ends = accumulate(counts)
        cuts = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
        return [Rows(images[cut], None if labels is None else labels[cut]) for cut in cuts]


@dataclass
class FairQueue:
    """The requests that wait, by model. An idle `take` sleeps; `close` wakes it for good."""

    _turns: dict[Loaded, deque[Work]] = field(default_factory=dict)  # ordered: the first is next
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def put(self, work: Work) -> bool:
        """Queue a request. False once closed, when nobody would do it."""
        with self._changed:
            if not self._closed:
                self._turns.setdefault(work.model, deque()).append(work)
                self._changed.notify()
            return not self._closed

    def withdraw(self, work: Work) -> None:
        """Forget what is left of a request; no harm when nothing is."""
        with self._changed:
            works = self._turns.get(work.model)
            if works and work in works:
                works.remove(work)
                if not works:
                    del self._turns[work.model]

    def take(self) -> Batch | None:
        """The next forward, as soon as anything waits; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._closed)
            if self._closed:
                return None
            model, works = next(iter(self._turns.items()))
            del self._turns[model]
            batch = _fill(model, works)
            if works:
                self._turns[model] = works  # behind the others
            return batch

    def close(self) -> list[Work]:
        """Let `take` end, and give back what will not be done."""
        with self._changed:
            left = [work for works in self._turns.values() for work in works]
            self._turns.clear()
            self._closed = True
            self._changed.notify_all()
            return left


def _fill(model: Loaded, works: deque[Work]) -> Batch:
    """Take an equal share of the next forward's rows for each of the first requests."""
    first = list(islice(works, model.shapes.rows))
    shape = model.shapes.choose(sum(work.left for work in first))
    rows = model.shapes.capacity[shape]
    parts = []
    # Max-min fairness: the smallest first, so that what they do not need is shared by the rest.
    served = sorted(first[:rows], key=lambda work: work.left)
    for index, work in enumerate(served):
        count = min(work.left, -(-rows // (len(served) - index)))
        parts.append(Part(work, work.taken, work.taken + count))
        work.taken += count
        rows -= count
        works.remove(work)
        if work.left:
            works.append(work)
    return Batch(model, shape, parts)
