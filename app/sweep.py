"""The sweep: takes work from lost workers, rings again for work that nobody took, clears away what is out of date.

It runs in every API and worker process; every step is a conditional write, so any number of sweeps at once do what one would.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import structlog
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app import batches, datasets, jobs
from app.db import Database, now, settings_of
from app.errors import GanvilError
from app.queue import Bell
from app.settings import Settings
from app.storage import Storage
from app.tables import IdempotencyKey, Worker

FORGOTTEN_SECONDS = 600.0  # after which a silent worker's row goes

log = structlog.get_logger()


class Result(NamedTuple):
    """The ids of jobs that were taken from lost workers, the rings that are due on each queue, and the storage prefixes of batches
    that have expired or ended with their worker.
    """

    moved: list[str]
    train_rings: int
    io_rings: int
    batch_rings: int
    unneeded: list[str]


def sweep(session: Session) -> Result:
    """One sweep, inside a writing transaction. Ring and notify after its commit."""
    swept, io_rings, batched = jobs.sweep(session), datasets.sweep(session), batches.sweep(session)
    keys_kept_since = now() - settings_of(session).idempotency_seconds
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < keys_kept_since))
    session.execute(delete(Worker).where(Worker.seen_at < now() - FORGOTTEN_SECONDS))
    return Result(swept.moved, swept.rings, io_rings, batched.rings, batched.unneeded)


@contextmanager
def vital(what: str) -> Iterator[None]:
    """For the threads without which a process only half lives: what ends the block early is logged, raised, and ends the process.

    Whoever started the process may start it again.
    """
    try:
        yield
    except Exception:
        log.exception("process.broken", what=what)
        os.kill(os.getpid(), signal.SIGTERM)
        raise


class Sweeper:
    """Sweeps every `sweep_seconds` in a thread of its own, from `start` to `stop`."""

    def __init__(self, database: Database, bell: Bell, settings: Settings) -> None:
        self._database = database
        self._bell = bell
        self._storage = Storage(settings.storage_url)
        self._seconds = settings.sweep_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when no sweep is under way any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with vital("sweep"):
            while not self._stopping.is_set():
                try:
                    self.sweep_once()
                except GanvilError as error:  # the database is away: it is tried again
                    log.warning("sweep.failed", error=error.detail)
                self._stopping.wait(self._seconds)

    def sweep_once(self) -> Result:
        """Sweep, commit, then ring, notify and delete. What a storage that is away keeps is found as orphans later."""
        with self._database.writing(aside=True) as session:
            result = sweep(session)
        if result.moved:
            self._database.changed()
        if result.train_rings:
            self._bell.ring("train", result.train_rings)
        if result.io_rings:
            self._bell.ring("io", result.io_rings)
        if result.batch_rings:
            self._bell.ring("batch", result.batch_rings)
        for job_id in result.moved:
            self._bell.notify(job_id)
        for prefix in result.unneeded:
            self._storage.delete_prefix(prefix)
        return result
