"""Who waits for whose locks, for how long, and what becomes of the locks of a process that stops, on SQLite and PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from app.db import MIGRATION_LOCK, Database
from app.errors import Unavailable
from app.settings import Settings
from app.sweep import sweep
from app.tables import Dataset, Job
from tests.factories import make_dataset, make_job

on_postgresql = pytest.mark.parametrize(
    "any_database", [pytest.param("postgres", marks=pytest.mark.needs("postgres"))], indirect=True
)


def test_concurrent_writers_wait_for_each_other(any_database: Database) -> None:
    """Ten threads that read and then write one row twenty times each lose no update and meet no lock error."""
    with any_database.writing() as session:
        dataset_id = make_dataset(session).id

    def count(_: int) -> None:
        for _ in range(20):
            with any_database.writing() as session:
                row = session.get_one(Dataset, dataset_id, with_for_update=True)
                row.priority += 1

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(count, range(10)))
    with any_database.reading() as session:
        assert session.get_one(Dataset, dataset_id).priority == 200


def test_locked_sqlite_is_unavailable(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that another process keeps out for longer than the timeout gets Unavailable."""
    monkeypatch.setattr("app.db.BUSY_TIMEOUT_SECONDS", 0.1)
    impatient = Database(settings)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.writing() as session:
            make_dataset(session)
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with pytest.raises(Unavailable), impatient.writing() as session:
        make_dataset(session)
    done.set()
    holder.join()
    impatient.close()


@contextmanager
def limited(database: Database, **changes: Any) -> Iterator[Database]:
    """The same database within the service's own limits, which tests otherwise lift."""
    url = database.engine.url.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    with closing(Database(database.settings.model_copy(update={"database_url": url, **changes}))) as within_limits:
        yield within_limits


LOCK_EVERY_JOB_AND_FREEZE = """
import os, signal, sys
from sqlalchemy import text
from app.db import Database
from app.settings import Settings

settings = Settings.model_validate_json(sys.argv[1])
with Database(settings).writing() as session:
    session.execute(text("UPDATE jobs SET priority = 9"))
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextmanager
def frozen_client(database: Database) -> Iterator[subprocess.Popen[str]]:
    """A process that is stopped in a writing transaction, with every job locked."""
    command = [sys.executable, "-c", LOCK_EVERY_JOB_AND_FREEZE, database.settings.model_dump_json()]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE) as process:
        try:
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            yield process
        finally:
            process.kill()


@on_postgresql
def test_rows_of_a_frozen_client_become_free(any_database: Database) -> None:
    """PostgreSQL ends a transaction whose client is stopped: its writes are undone, and who waits for its rows gets them.

    A sweep does not even wait for them and, once they are free, takes them from their lost worker.
    """
    with any_database.writing() as session:
        job_id = make_job(session, status="running", lease_until=0.0, worker="frozen").id
    with limited(any_database, lease_seconds=9.0) as database, frozen_client(database) as client:  # time to look at it
        began = time.monotonic()
        with database.writing() as session:
            assert sweep(session).moved == []  # had it waited, it would have moved the job
        with database.writing() as session:
            job = session.get_one(Job, job_id, with_for_update=True)
            assert (job.priority, job.status) == (0, "running")
        assert time.monotonic() - began < database.settings.lease_seconds
        with database.writing() as session:
            assert sweep(session).moved == [job_id]
        client.send_signal(signal.SIGCONT)
        _, errors = client.communicate(timeout=30)
        assert "app.errors.Unavailable" in errors


@on_postgresql
def test_waiting_for_a_row_has_an_end(any_database: Database) -> None:
    """Who waits for a row that a busy transaction keeps locked gets Unavailable after a third of a lease."""
    with any_database.writing() as session:
        job_id = make_job(session).id
    with any_database.writing() as busy, ThreadPoolExecutor(1) as pool:
        busy.get_one(Job, job_id, with_for_update=True)
        working = pool.submit(
            busy.execute, text("SELECT pg_sleep(:lease)"), {"lease": any_database.settings.lease_seconds}
        )
        with limited(any_database) as database, pytest.raises(Unavailable), database.writing() as session:
            session.get_one(Job, job_id, with_for_update=True)
        assert not working.done()
        working.result()


@on_postgresql
def test_a_migration_waits_for_another_as_long_as_it_takes(any_database: Database) -> None:
    """The limit on waiting for a lock is not one on waiting for a migration that another process runs."""
    with limited(any_database) as database, ThreadPoolExecutor(1) as pool:
        with psycopg.connect(database.settings.database_url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
            waiting = pool.submit(database.migrate)
            time.sleep(database.settings.lease_seconds / 3 + 0.3)
            assert not waiting.done()
        waiting.result(timeout=30)


@on_postgresql
def test_options_of_the_address_have_the_last_word(any_database: Database) -> None:
    """What an operator writes into the URL is kept, and overrides our own limits."""
    url = any_database.engine.url.set(query={"options": "-c lock_timeout=7s -c search_path=elsewhere"})
    address = url.render_as_string(hide_password=False)
    with closing(Database(Settings(database_url=address))) as database, database.reading() as session:
        names = ("lock_timeout", "search_path", "idle_in_transaction_session_timeout")
        shown = {name: session.execute(text(f"SHOW {name}")).scalar_one() for name in names}
    assert shown == dict(zip(names, ("7s", "elsewhere", "7500ms"), strict=True))
