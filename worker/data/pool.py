"""Processes that work on chunks, with a bounded number of chunks on the way, and results in the order of the chunks."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Self, TypeVar

from worker.data.members import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

CHUNKS_FOR_EACH_PROCESS = 4
PATIENCE_SECONDS = 0.1


class Pool:
    """`processes` of them; one is a thread of this process. A context manager: leaving it early ends them at once."""

    def __init__(self, processes: int) -> None:
        self._in_flight = CHUNKS_FOR_EACH_PROCESS * processes
        self._others = set(multiprocessing.active_children())
        self._executor: Executor
        if processes == 1:
            self._executor = ThreadPoolExecutor(1)
            return
        # Forked from a small clean process: neither the cost of a fresh interpreter for each, nor the hazards of fork with threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["worker.data.chunks"])
        self._executor = ProcessPoolExecutor(processes, context, _begin)
        for _ in range(processes):
            self._executor.submit(_nothing)  # start them now, while the archive is being looked at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._executor.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], tick: Callable[[], None]
    ) -> Iterator[Result]:
        """`function` of every task, in order. `tick` is called at least every 0.1 s.

        Raises what `function` raises, and DataError `decoder_died` when a process is killed.
        """
        waiting: deque[Future[Result]] = deque()
        remaining = iter(tasks)
        try:
            while True:
                while len(waiting) < self._in_flight and (task := next(remaining, None)) is not None:
                    waiting.append(self._executor.submit(function, task))
                if not waiting:
                    return
                while not wait([waiting[0]], PATIENCE_SECONDS).done:
                    tick()
                tick()
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            tick()  # whoever asked us to stop may have told the whole process group
            raise DataError(
                "decoder_died",
                "a process that decodes images was killed, most likely because an image took too much memory."
                " Make the images smaller and upload them again.",
            ) from error


def _nothing() -> None:
    pass


def _begin() -> None:
    """In each process: leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        with contextlib.suppress(OSError):
            parent.join()
        os._exit(1)
