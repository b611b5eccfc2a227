"""From the queue to the event loop: one thread runs forwards, several encode what it made while it goes on.

Both run as tasks of executors, which hand over whatever they raise: it fails the requests that rode in that batch, and no others.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from app.errors import DeadlineExceeded
from app.sampling import engine
from app.sampling.encoding import Encoding
from app.sampling.scheduling import Batch, FairQueue, Part, Rows, Work
from app.sampling.threads import Threads
from models.machine import available_cores

ENCODE_TOGETHER = 16  # samples that one encoder thread takes at a time, at most
TOGETHER_BYTES = 2**20  # of their pixels: so many are enlarged at once, or one picture
ENCODE_AT_ONCE = 2  # samples of a forward for which another thread is not worth waking
AT_ONCE_BYTES = 2**16  # of their pixels: what is more takes longer than another thread's waking
MOST_UNENCODED = 16  # groups of samples that wait for an encoder before forwards wait for the encoders
PACE_MEMORY = 0.9  # of the seconds and samples that lie behind

Outcome = Rows | BaseException


class Pipeline:
    """Takes batches from the queue until it is closed. Nothing starts, and no torch is loaded, before `start`."""

    def __init__(self, queue: FairQueue, threads: int) -> None:
        self._queue = queue
        self._forwards = ThreadPoolExecutor(1, "forward", engine.start_thread, (threads,))
        self._encoders = ThreadPoolExecutor(available_cores(), "encoder")
        self.slow = Threads(max(1, available_cores() - 1), "slow-encoder")  # of all that takes long
        self._room = threading.Semaphore(MOST_UNENCODED)
        self._batch: Batch | None = None  # which a failing turn was about
        self._seconds = self._rows = 0.0  # lately, the longer ago the less
        self.started = False

    @property
    def pace(self) -> float:
        """Seconds per sample, lately; 0 when nothing was made yet."""
        return self._seconds / self._rows if self._rows else 0.0

    def start(self) -> None:
        """Begin, once."""
        self.started = True
        self._go_on()

    def close(self) -> None:
        """Wait for what is under way; the queue must be closed."""
        self._forwards.shutdown()
        self._encoders.shutdown()
        self.slow.shutdown()

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # it was shut down
            self._forwards.submit(self._take_turns).add_done_callback(self._conclude)

    def _take_turns(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """The next forward, on its thread; False when there are no more."""
        self._batch = batch = self._queue.take()
        if batch is None:
            return False
        if batch.late:
            late = DeadlineExceeded("Its turn did not come within the time that was asked for.")
            deliver((work, late) for work in batch.late)
        ready: list[tuple[Work, Outcome]] = []
        rows, begun = batch.rows, time.perf_counter()
        with engine.short_memory_refused():
            made = batch.run()
            for group in _groups(batch.parts, made):
                if group.encoding is None or (rows <= ENCODE_AT_ONCE and group.quick):
                    ready += group.finish()
                else:
                    self._encode_beside(group)
        if ready:
            deliver(ready)
        self._seconds = PACE_MEMORY * self._seconds + time.perf_counter() - begun
        self._rows = PACE_MEMORY * self._rows + rows
        return True

    def _conclude(self, turns: Future[None]) -> None:
        error = turns.exception()
        if error is None:  # the queue is closed
            return
        if self._batch is not None:
            deliver((part.work, error) for part in self._batch.parts)
        self._go_on()

    def _encode_beside(self, group: "Group") -> None:
        """What takes long neither waits for room nor takes it: admission bounds its bytes, and no forward is held up by it."""
        if group.slow:
            self.slow.submit(group.finish_wanted).add_done_callback(partial(self._finished, group))
        else:
            self._room.acquire()
            done = self._encoders.submit(group.finish)
            done.add_done_callback(lambda _: self._room.release())
            done.add_done_callback(partial(self._finished, group))

    def _finished(self, group: "Group", finish: Future[list[tuple[Work, Rows]]]) -> None:
        error = finish.exception()
        deliver(finish.result() if error is None else [(work, error) for work, _ in group.members])


@dataclass(eq=False, slots=True)
class Group:
    """Some rows of a forward that are encoded together, or not at all. `picture_bytes` are one's pixels as they are encoded."""

    encoding: Encoding | None
    members: list[tuple[Work, Rows]]
    picture_bytes: int

    @property
    def size(self) -> int:
        return sum(len(rows.images) for _, rows in self.members)

    @property
    def slow(self) -> bool:
        """Whether its pictures take long, each by itself."""
        return self.encoding is not None and self.encoding.slow(self.picture_bytes)

    @property
    def quick(self) -> bool:
        """Whether all its pictures together take less than it takes to wake a thread."""
        return self.picture_bytes * self.size <= AT_ONCE_BYTES and not self.slow

    def finish_wanted(self) -> list[tuple[Work, Rows]]:
        """`finish` of those that still wait. What takes long may lie here until nobody does."""
        now = time.monotonic()
        wanted = [(work, rows) for work, rows in self.members if work.expires > now]
        return replace(self, members=wanted).finish() if wanted else []

    def finish(self) -> list[tuple[Work, Rows]]:
        """The same rows, with their files."""
        if self.encoding is None:
            return self.members
        images = [rows.images for _, rows in self.members]
        texts = [text for work, rows in self.members for text in _texts(work, rows)]
        with engine.short_memory_refused():
            files = iter(self.encoding.encode(images[0] if len(images) == 1 else np.concatenate(images), texts))
        return [(work, replace(rows, files=list(islice(files, len(rows.images))))) for work, rows in self.members]


def _groups(parts: Sequence[Part], made: Sequence[Rows]) -> list[Group]:
    """What was made, in runs of one encoding and of as many rows as are encoded together where there is one."""
    groups: list[Group] = []
    sample_bytes = made[0].images[0].nbytes if made else 0
    for part, rows in zip(parts, made, strict=True):
        encoding = part.work.encoding
        step, size = len(rows.images), sample_bytes
        if encoding is not None:
            size *= encoding.scale**2
            step = ENCODE_TOGETHER if size * ENCODE_TOGETHER <= TOGETHER_BYTES else max(1, TOGETHER_BYTES // size)
        for piece in _pieces(rows, step):
            last = groups[-1] if groups else None
            if (
                encoding is not None
                and last is not None
                and encoding.like(last.encoding)
                and last.size + len(piece.images) <= step
            ):
                last.members.append((part.work, piece))
            else:
                groups.append(Group(encoding, [(part.work, piece)], size))
    return groups


def _pieces(rows: Rows, step: int) -> Iterator[Rows]:
    for begin in range(0, len(rows.images), step):
        cut = slice(begin, begin + step)
        labels = None if rows.labels is None else rows.labels[cut]
        yield Rows(rows.start + begin, labels, rows.images[cut])


def _texts(work: Work, rows: Rows) -> Iterator[str | None]:
    """What the file of each row says of itself."""
    assert work.encoding is not None
    labels = [None] * len(rows.images) if rows.labels is None or rows.labels.ndim > 1 else rows.labels.tolist()
    for index, label in enumerate(labels):
        yield work.encoding.describe(rows.start + index, label)


def deliver(outcomes: Iterable[tuple[Work, Outcome]]) -> None:
    """Hand outcomes over in the event loops of those who asked, with one call for as many as there are."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Work, Outcome]]] = defaultdict(list)
    for work, outcome in outcomes:
        loops[work.loop].append((work, outcome))
    for loop, own in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_hand_over, own)


def _hand_over(outcomes: list[tuple[Work, Outcome]]) -> None:
    for work, outcome in outcomes:
        work.deliver(outcome)
