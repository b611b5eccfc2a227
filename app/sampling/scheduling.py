"""Who rides in the next forward. Knows no torch; safe to share between threads.

Batch while busy, never wait when idle: `take` gives whatever waits, at once. Models take turns, one forward each. Within a
forward those who want least come first, and nobody gets more than an equal share of the rows or, if that is less, a fourth: so
one who asks for a single sample need not wait for one who asked for a thousand, and many who ask for a few are done one after the
other, for to cut their samples apart would cost more than to make them. Whoever was served and wants more goes to the back.
Whoever's time is up gets no share.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.sampling.encoding import Encoding
from app.sampling.inputs import Inputs, Latents, Seeds
from app.sampling.loaded import Loaded

SHARES = 4  # that a forward is cut into, unless requests want less than that


@dataclass(frozen=True)
class Rows:
    """Consecutive samples of one request from the `start`th on: as pixels or, where the request has an encoding, as files."""

    start: int
    labels: NDArray[np.int64] | NDArray[np.float32] | None  # [n] or [n, n_classes]
    images: NDArray[np.uint8]  # [n, H, W, C]
    files: list[bytes] | None = None


@dataclass(eq=False)
class Work:
    """One request: its rows leave in order, in as many parts as it takes."""

    model: Loaded
    inputs: Inputs
    deliver: Callable[[Rows | BaseException], None]  # called in `loop`
    loop: asyncio.AbstractEventLoop
    encoding: Encoding | None = None
    expires: float = math.inf  # by time.monotonic()
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.inputs) - self.taken


@dataclass(frozen=True)
class Part:
    """Rows [start, stop) of a request."""

    work: Work
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Batch:
    """One forward: rows of one model, and the shape to pad them to. It may be empty, where all were `late`."""

    model: Loaded
    shape: int
    parts: Sequence[Part]
    late: Sequence[Work] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def run(self) -> list[Rows]:
        """Generate, and give each part its own."""
        if not self.parts:
            return []
        z, labels = self._inputs()
        images = self.model.generate(z, labels, self.shape)
        cuts = pairwise([0, *accumulate(part.rows for part in self.parts)])
        return [
            Rows(part.start, None if labels is None else labels[begin:end], images[begin:end])
            for part, (begin, end) in zip(self.parts, cuts, strict=True)
        ]

    def _inputs(self) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
        """Z [rows, z_dim] and the labels. All seeds are drawn together: one by one would take as long as the forward."""
        drawn = self._drawn()
        at, z, labels = 0, [], []
        for part in self.parts:
            inputs = part.work.inputs
            if isinstance(inputs, Latents):
                z.append(inputs.z[part.start : part.stop])
                labels.append(None if inputs.labels is None else inputs.labels[part.start : part.stop])
            elif drawn is not None:
                z.append(drawn[0][at : at + part.rows])
                labels.append(None if drawn[1] is None else drawn[1][at : at + part.rows])
                at += part.rows
        if drawn is not None and at == self.rows:
            return drawn
        known = [each for each in labels if each is not None]
        return np.concatenate(z), np.concatenate(known) if known else None

    def _drawn(self) -> tuple[NDArray[np.float32], NDArray[np.int64] | None] | None:
        """What the seeds among the rows stand for, in order."""
        parts = [(part, part.work.inputs) for part in self.parts if isinstance(part.work.inputs, Seeds)]
        if not parts:
            return None
        seeds = [seed for part, inputs in parts for seed in inputs.seeds[part.start : part.stop]]
        counts = [part.rows for part, _ in parts]
        truncation = np.repeat(np.array([inputs.truncation for _, inputs in parts], np.float32), counts)
        asked = None
        if any(inputs.labels is not None for _, inputs in parts):
            asked = np.concatenate([_labels(part, inputs) for part, inputs in parts])
        return self.model.draw(seeds, truncation), self.model.labels(seeds, asked)


def _labels(part: Part, inputs: Seeds) -> NDArray[np.int64]:
    """Class indices, -1 where the seed decides."""
    return np.full(part.rows, -1, np.int64) if inputs.labels is None else inputs.labels[part.start : part.stop]


@dataclass
class FairQueue:
    """The requests that wait, by model. An idle `take` sleeps; `close` wakes it for good."""

    _turns: dict[Loaded, deque[Work]] = field(default_factory=dict)  # ordered: the first is next
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def put(self, *works: Work) -> bool:
        """Queue requests. False once closed, when nobody would do them."""
        with self._changed:
            if not self._closed:
                for work in works:
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
    first, late = _first(works, model.shapes.rows)
    if not first:
        return Batch(model, 0, (), late)
    shape = model.shapes.choose(sum(work.left for work in first))
    rows = model.shapes.capacity[shape]
    least = -(-rows // SHARES)
    parts: list[Part] = []
    # Max-min fairness: the smallest first, so that what they do not need is shared by the rest.
    by_size = sorted(first, key=lambda work: work.left)
    for index, work in enumerate(by_size):
        count = min(work.left, rows, max(least, -(-rows // (len(first) - index))))
        if not count:
            break
        parts.append(Part(work, work.taken, work.taken + count))
        work.taken += count
        rows -= count
    served = {part.work for part in parts}
    works.extendleft(reversed([work for work in first if work not in served]))
    works.extend(part.work for part in parts if part.work.left)
    return Batch(model, shape, parts, late)


def _first(works: deque[Work], most: int) -> tuple[list[Work], list[Work]]:
    """Take out up to so many requests that may still be served, and those before them for which it is too late."""
    now = time.monotonic()
    first: list[Work] = []
    late: list[Work] = []
    while works and len(first) < most:
        work = works.popleft()
        (first if work.expires > now else late).append(work)
    return first, late
