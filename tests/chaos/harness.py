"""A small installation whose processes can be started, stopped and killed at will: real Redis, databases, Celery and trainers."""

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import datasets, jobs
from app.db import Database
from app.jobs import history
from app.queue import Bell
from app.settings import Settings
from app.storage import Storage
from app.tables import Base, Dataset, Event, Job, ModelVersion
from app.up.redis_server import free_port
from tests.factories import make_dataset
from tests.servers import wait_until

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 240.0

# 300 steps with six checkpoints: some three seconds of training on one thread.
REQUEST: dict[str, Any] = {
    "config": {
        "batch_size": 32,
        "network": {"family": "dcgan", "width": 16},
        "schedule": {"tick": 320, "grid": 3200, "checkpoint": 1600},
        "threads": 1,
    },
    "budget": {"examples": 9600},
    "seed": 7,
}
CHECKPOINT_EXAMPLES = 1600
TIMINGS = {
    "lease_seconds": 2.5,
    "renew_seconds": 0.4,
    "sweep_seconds": 0.3,
    "ring_seconds": 1,
    "stop_grace_seconds": 20,
    "time_slice_seconds": 600,
    "trainer_threads": 1,
    "log_level": "info",
}

# For tests that take long and ask nothing new of PostgreSQL, and for those of SQLite's one write lock.
on_sqlite_alone = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@dataclass
class Installation:
    """Settings, the database and storage that they name, and the processes that were started with them."""

    settings: Settings
    redis_url: str
    database: Database = field(init=False)
    storage: Storage = field(init=False)
    bell: Bell = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(self.settings)
        self.database.migrate()
        self.storage = Storage(self.settings.storage_url)
        self.bell = Bell(self.settings)

    def add_dataset(self, prepared: Path) -> str:
        with self.database.writing() as session:
            dataset = make_dataset(session)
        for path in prepared.iterdir():
            self.storage.put_file(f"{dataset.key}/{path.name}", path)
        return dataset.id

    def submit(self, dataset: str, **changes: Any) -> str:
        with self.database.writing() as session:
            job = jobs.submit(session, dataset=dataset, **(REQUEST | changes))
        self.bell.ring("train")
        return job.id

    def do(self, verb: Callable[[Session, str], Any], job_id: str) -> None:
        with self.database.writing() as session:
            verb(session, job_id)
        self.bell.ring("train")

    def job(self, job_id: str) -> Job:
        with self.database.reading() as session:
            return history.get(session, job_id)

    def dataset(self, dataset_id: str) -> Dataset:
        with self.database.reading() as session:
            return datasets.get(session, dataset_id)

    def start_worker(self) -> subprocess.Popen[bytes]:
        program = ["-m", "celery", "-A", "worker.tasks", "worker", "--pool", "threads", "--concurrency", "3"]
        return self._start(*program, "-Q", "train,io", "--without-gossip", "--without-mingle", "--without-heartbeat")

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """SIGSTOP at the worst moment that a lease must get over.

        With PostgreSQL that is within a transaction that has locked its job. With SQLite it is outside of transactions: no lease
        could take the one write lock from a process that holds it.
        """
        if self.database.engine.dialect.name == "sqlite":
            _freeze_when(process, lambda: not self._write_lock_is_held())
        else:
            self._freeze_with_row_lock(process)

    def freeze_with_write_lock(self, process: subprocess.Popen[bytes]) -> None:
        """SIGSTOP while the process holds SQLite's write lock."""
        _freeze_when(process, self._write_lock_is_held)

    def _write_lock_is_held(self) -> bool:
        with closing(sqlite3.connect(self.settings.data_dir / "ganvil.db", timeout=0.2)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False

    def _freeze_with_row_lock(self, process: subprocess.Popen[bytes]) -> None:
        """A report locks its job, and then waits for the events, which we hold until the process is stopped."""
        waits = "SELECT 1 FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
        with psycopg.connect(self.settings.database_url) as connection:
            connection.execute("LOCK TABLE events IN SHARE MODE")
            wait_until(lambda: connection.execute(waits).fetchone())
            process.send_signal(signal.SIGSTOP)

    def start_api(self) -> tuple[subprocess.Popen[bytes], str]:
        """The process and its URL, once it is ready."""
        port = free_port("127.0.0.1")
        process = self._start("-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{url}/health/live").is_success, unless=httpx.TransportError)
        return process, url

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        told = {
            f"GANVIL_{name.upper()}": str(value) for name, value in self.settings.model_dump(exclude_unset=True).items()
        }
        with (self.settings.data_dir / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=PROJECT, env=os.environ | told, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def wait_for_status(self, job_id: str, *wanted: str) -> None:
        wait_until(lambda: self.job(job_id).status in wanted, seconds=DEADLINE_SECONDS)

    def wait_for_end(self, job_id: str) -> None:
        self.wait_for_status(job_id, "succeeded", "failed", "cancelled")

    def wait_for_log(self, pattern: str) -> None:
        """Until a process has logged what matches."""
        wait_until(lambda: re.search(pattern, self.log()), seconds=DEADLINE_SECONDS)

    def rows(self, table: type[Base]) -> list[dict[str, Any]]:
        """All that a table says."""
        with self.database.reading() as session:
            return [dict(row) for row in session.execute(select(table.__table__)).mappings()]

    def wait_for_examples(self, job_id: str, examples: int = CHECKPOINT_EXAMPLES) -> None:
        """Until a checkpoint after so many examples is recorded, and the job goes on."""
        wait_until(lambda: self.newest_checkpoint(job_id) >= examples, seconds=DEADLINE_SECONDS)
        assert self.job(job_id).status == "running", "the job is too short for what is to be done to it"

    def newest_checkpoint(self, job_id: str) -> int:
        with self.database.reading() as session:
            return max((row.examples_seen for row in history.checkpoints(session, job_id)), default=0)

    def trainer_pid(self, job_id: str) -> int:
        (pid,) = wait_for(lambda: self.children(job_id))
        return pid

    def children(self, what: str = "") -> list[int]:
        """The trainers and preparers of this installation, or of one job, that still live."""
        return [pid for pid, command in processes() if f"{self.settings.data_dir.resolve()}/runs/{what}" in command]

    def statuses(self, job_id: str) -> list[str]:
        """The job's history of states, as (status, reason) pairs joined by a colon."""
        with self.database.reading() as session:
            rows = history.events(session, job_id, kinds=["status"])
            return [f"{row.data['status']}:{row.data['reason']}" for row in rows]

    def log(self) -> str:
        return (self.settings.data_dir / "processes.log").read_text(errors="replace")

    def assert_ended_once(self, job_id: str, sha256: str) -> None:
        """One success, one model version, each tick once, and the very bytes of an undisturbed run."""
        with self.database.reading() as session:
            job = history.get(session, job_id)
            versions = session.scalars(select(ModelVersion).where(ModelVersion.job_id == job_id)).all()
            ticks = session.execute(
                select(Event.kind, Event.examples_seen).where(Event.job_id == job_id, Event.examples_seen.is_not(None))
            ).all()
        assert job.status == "succeeded", (job.status, job.error)
        assert [status for status in self.statuses(job_id) if status.startswith("succeeded")] == ["succeeded:finished"]
        repeated = [tick for tick in ticks if tick.kind in {"metrics", "grid", "checkpoint"}]
        assert len(repeated) == len(set(repeated))
        assert len(versions) == 1
        model = self.storage.get_bytes(f"{versions[0].snapshot_key}/generator.safetensors")
        assert hashlib.sha256(model).hexdigest() == versions[0].sha256 == sha256

    def close(self) -> None:
        """End every process; what they started must have ended by itself soon after."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        try:
            for process in self.processes:
                process.wait(DEADLINE_SECONDS)
            wait_until(lambda: not self.children(), seconds=DEADLINE_SECONDS)
        finally:
            for pid in [*(process.pid for process in self.processes if process.poll() is None), *self.children()]:
                os.kill(pid, signal.SIGKILL)
            self.bell.close()
            self.database.close()


def _freeze_when(process: subprocess.Popen[bytes], wanted: Callable[[], bool]) -> None:
    def frozen() -> bool:
        process.send_signal(signal.SIGSTOP)
        if wanted():
            return True
        process.send_signal(signal.SIGCONT)
        return False

    wait_until(frozen)


@contextmanager
def installation(folder: Path, redis_url: str, **changes: Any) -> Iterator[Installation]:
    """An installation in `folder`; at the end nothing of it runs any more."""
    settings = Settings(data_dir=folder / "data", redis_url=redis_url, **(TIMINGS | changes))
    settings.data_dir.mkdir(parents=True)
    made = Installation(settings, redis_url)
    try:
        yield made
    finally:
        made.close()


def processes() -> Iterator[tuple[int, str]]:
    """Every process of this machine that is not a zombie: its id and its command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue


def wait_for(look: Callable[[], list[int]]) -> list[int]:
    """What `look` finds, once it finds something."""
    wait_until(look, seconds=DEADLINE_SECONDS)
    return look()


def train_alone(database: Database, dataset_id: str, prepared: Path, run_dir: Path) -> str:
    """The sha256 of the model that the same config makes without a service, by the trainer alone."""
    with database.reading() as session:
        config = jobs.plan(session, dataset=session.get_one(Dataset, dataset_id).id, **REQUEST).config
    run_dir.mkdir()
    (run_dir / "run.json").write_text(json.dumps({"config": config, "data": str(prepared)}))
    subprocess.run(
        [sys.executable, "-m", "worker.trainer", str(run_dir)], cwd=PROJECT, check=True, timeout=DEADLINE_SECONDS
    )
    newest = max((run_dir / "checkpoints").iterdir())
    return hashlib.sha256((newest / "generator.safetensors").read_bytes()).hexdigest()
