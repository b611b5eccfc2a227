"""Keeping a claim alive while its work goes on, and ending the work when that fails.

Time is measured here by a clock that nobody sets (`clock`), from *before* each claim or renewal was sent. The database gave the
lease its end later than that, by its own clock, so whatever the two say, the deadline here falls before the one that other workers
see; only a database whose clock is set forward meanwhile may end the lease earlier, and then the fence refuses what is written
late. A process that was stopped or cut off finds its deadline past before anything else, kills its child and writes nothing.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import structlog
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import GanvilError, LeaseLost, Unavailable

log = structlog.get_logger()

CONTINUE = "continue"
SAFE_SHARE = 0.9  # of the lease; the rest is for the kill to take effect
RETRY_SECONDS = 0.5

# Linux only: the one that goes on while the machine sleeps, as the database's does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

P = ParamSpec("P")
R = TypeVar("R")


def clock() -> float:
    """Seconds since some moment in the past; only differences mean something."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """A claim as a context manager: renewed by one thread, watched by another, which never waits for the database.

    `renew(session, row_id, fence)` extends it and answers with an order (continue, pause, cancel, yield) or None; it raises
    LeaseLost when the claim is no longer ours. `asked_at` is `clock()` from before the claim was made; `stopping` is set
    when this worker is to end.
    """

    def __init__(
        self,
        database: Database,
        row_id: str,
        fence: int,
        renew: Callable[[Session, str, int], str | None],
        *,
        asked_at: float,
        stopping: threading.Event,
    ) -> None:
        self.row_id = row_id
        self.fence = fence
        self.order = CONTINUE
        self._stopping = stopping
        self._database = database
        self._renew = renew
        self._span = database.settings.lease_seconds * SAFE_SHARE
        self._pause = database.settings.renew_seconds
        self._deadline = asked_at + self._span
        self._done = threading.Event()
        self._lost = threading.Event()
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self._threads = [
            threading.Thread(target=self._keep, name=f"renew {row_id}", daemon=True),
            threading.Thread(target=self._watch, name=f"watch {row_id}", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(self._span)

    @property
    def stop_reason(self) -> str | None:
        """Why the work should stop now: an order, or "deploy" when this worker ends. None while it may go on."""
        if self.order != CONTINUE:
            return self.order
        return "deploy" if self._stopping.is_set() else None

    def check(self) -> None:
        """Raise LeaseLost when the claim is gone or its time has passed."""
        if self._lost.is_set() or clock() >= self._deadline:
            self._lose()
            raise LeaseLost(f"{self.row_id}: a newer run holds it, or the lease could not be renewed in time")

    def on_loss(self, kill: Callable[[], None]) -> None:
        """Have `kill` called the moment the lease is lost, or at once when it is already."""
        with self._lock:
            self._kill = kill
        if self._lost.is_set():
            kill()

    def write(
        self, function: Callable[Concatenate[Session, str, int, P], R], *arguments: P.args, **keywords: P.kwargs
    ) -> R:
        """`function(session, row_id, fence, ...)` in one writing transaction; again while the database does not answer.

        Raises LeaseLost when the lease ends before it does, and whatever else the function raises. A commit whose answer was
        lost is done twice: ticks replace themselves, an ending that had been written answers LeaseLost, and lines of the log,
        warnings and verdicts then stand twice in the history.
        """
        while True:
            self.check()
            try:
                with self._database.writing() as session:
                    return function(session, self.row_id, self.fence, *arguments, **keywords)
            except Unavailable as error:
                log.warning("lease.write_failed", row=self.row_id, error=str(error))
            time.sleep(RETRY_SECONDS)

    def patiently(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        """`function(...)`, tried again while the storage or the database does not answer: an outage costs time and not the run.

        Raises Unavailable only once the work should stop, LeaseLost when the lease ends before the outage.
        """
        while True:
            self.check()
            try:
                return function(*arguments, **keywords)
            except Unavailable as error:
                log.warning("lease.unavailable", row=self.row_id, error=str(error))
                if self.stop_reason:
                    raise
            time.sleep(RETRY_SECONDS)

    def _keep(self) -> None:
        pause = self._pause
        while not self._done.wait(pause) and not self._lost.is_set():
            asked_at = clock()
            try:
                with self._database.writing() as session:
                    order = self._renew(session, self.row_id, self.fence)
            except LeaseLost:
                self._lose()
            except GanvilError as error:  # away, busy, full: tried again until the lease is over
                log.warning("lease.renew_failed", row=self.row_id, error=str(error))
                pause = min(RETRY_SECONDS, self._pause)
            else:
                self.order = order or CONTINUE
                self._deadline = asked_at + self._span
                pause = self._pause

    def _watch(self) -> None:
        while not self._done.wait(max(0.0, self._deadline - clock())):
            if self._lost.is_set() or clock() >= self._deadline:
                self._lose()
                return

    def _lose(self) -> None:
        with self._lock:
            self._lost.set()
            kill = self._kill
        if kill is not None and not self._done.is_set():
            kill()
