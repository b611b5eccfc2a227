"""What one worker process has: settings, database, storage and bell, its places, and the threads that run beside its tasks."""

import os
import socket
import threading
from collections.abc import Callable
from functools import partial

import structlog

from app import orphans, workers
from app.db import Database
from app.errors import GanvilError
from app.queue import Bell
from app.settings import Settings
from app.storage import Storage
from app.sweep import Sweeper, vital
from models.machine import available_cores
from worker.child import inherited_environment
from worker.slots import Slots, find_gpus, training_places
from worker.workspace import DatasetCache, clean_run_directories

log = structlog.get_logger()


class Service:
    """Everything that a task needs. `stopping` is set when this worker is to end; its tasks then give their work back."""

    def __init__(self, settings: Settings) -> None:
        gpus = find_gpus(inherited_environment().get("CUDA_VISIBLE_DEVICES"))
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.gpus = len(gpus)
        self.stopping = threading.Event()
        self._closing = threading.Event()
        self.database = Database(settings)
        self.storage = Storage(settings.storage_url)
        self.bell = Bell(settings)
        self.datasets = DatasetCache(settings.cache_dir / "datasets", self.storage)
        self.runs = settings.data_dir / "runs"
        self.training = Slots(training_places(settings.train_slots, gpus), partial(self.bell.ring, "train"))
        self.probing = Slots([{}], partial(self.bell.ring, "probe"))
        self.io = Slots([{}], partial(self.bell.ring, "io"))
        self.batching = Slots([{}], partial(self.bell.ring, "batch"))
        self._sweeper = Sweeper(self.database, self.bell, settings)
        self._clearer = threading.Thread(target=self._clear_orphans, name="orphans", daemon=True)
        self._life = threading.Thread(target=self._live, name="life", daemon=True)

    def start(self) -> None:
        """Begin, in a thread: bring the schema up to date, look for work once, then sweep and beat until `close`.

        Tasks that were told to stop take their time over a checkpoint, and all that while this worker lives.
        """
        self._life.start()

    def stop(self) -> None:
        """Have the tasks give their work back. Called by a signal handler, which must not wait for a lock it interrupted."""
        if not self.stopping.is_set():
            self.stopping.set()

    def close(self) -> None:
        """End the threads; called when no task runs any more."""
        self.stop()
        self._closing.set()
        if self._life.is_alive():
            self._life.join()
        self.bell.close()
        self.database.close()

    def _live(self) -> None:
        with vital("worker"):  # which ends by a database of a newer release, for one
            clean_run_directories(self.runs)
            while not self._says(self.database.migrate) and not self._pause():
                pass
            self._sweeper.start()
            self._clearer.start()
            self.bell.ring("train", self.training.total)
            self.bell.ring("io")
            self.bell.ring("batch")
            while not self._pause():
                self._says(self._beat)
            self._sweeper.stop()
            self._clearer.join()
            self._says(self._leave)

    def _clear_orphans(self) -> None:
        """Now and then, in a thread of its own: to go through a large storage takes long."""
        with vital("orphans"):
            while not self.stopping.is_set():
                try:
                    orphans.clear_when_due(self.database, self.storage, self.stopping)
                except GanvilError as error:  # the database or the storage is away: it is tried again in due time
                    log.warning("orphans.failed", error=error.detail)
                self.stopping.wait(orphans.period(self.settings))

    def _pause(self) -> bool:
        """Wait a little; whether this worker has ended."""
        return self._closing.wait(self.settings.sweep_seconds)

    def _says(self, to_the_database: Callable[[], None]) -> bool:
        """Whether the database heard it. When it is away, that is no reason to end: it is tried again."""
        try:
            to_the_database()
        except GanvilError as error:
            log.warning("worker.database_failed", error=error.detail)
            return False
        return True

    def _beat(self) -> None:
        with self.database.writing() as session:
            workers.beat(
                session,
                worker=self.name,
                slots=self.training.total,
                busy=self.training.busy,
                device=f"{self.gpus} GPU" if self.gpus else "CPU",
                gpus=self.gpus,
                cores=available_cores(),
            )

    def _leave(self) -> None:
        with self.database.writing() as session:
            workers.leave(session, self.name)
