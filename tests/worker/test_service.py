"""The life of a worker process beside its tasks."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import select, text

from app.settings import Settings
from app.tables import Job, Worker
from tests.factories import claimed, make_dataset, make_job
from tests.servers import wait_until
from worker.service import Service


@pytest.fixture
def asked_to_end() -> Iterator[threading.Event]:
    """Set when this process is sent SIGTERM."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    yield asked
    signal.signal(signal.SIGTERM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_that_cannot_go_on_ends(service: Service, asked_to_end: threading.Event) -> None:
    """A database that a newer release has changed ends the process, whose supervisor starts it again: no silent half life."""
    with service.database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    with closing(service):
        service.start()
        assert asked_to_end.wait(30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_without_a_thread_of_its_own_ends(
    service: Service, asked_to_end: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thread beside the tasks that breaks, here the one that clears orphans, ends the process and says so."""
    with service.database.writing() as session:
        session.execute(text("DROP TABLE chores"))
    with closing(service):
        service.start()
        assert asked_to_end.wait(30)
    assert "process.broken" in capsys.readouterr().out


def test_worker_lives_until_its_tasks_have_ended(service: Service) -> None:
    """A worker that is to end goes on beating and sweeping while its trainers checkpoint; closed, it has left."""
    with closing(service):
        service.start()
        wait_until(lambda: seen_at(service))
        service.stop()
        with service.database.writing() as session:
            job = claimed(session, make_job(session))
            job.lease_until = 0.0
        before = seen_at(service)
        wait_until(lambda: seen_at(service) > before and status_of(service, job.id) == "queued")
    assert seen_at(service) == 0.0


def test_worker_says_what_it_trains_on(service: Service) -> None:
    """Its cores and GPUs, by which presets are chosen elsewhere."""
    with closing(service):
        service.start()
        wait_until(lambda: seen_at(service))
        with service.database.reading() as session:
            row = session.scalars(select(Worker)).one()
        assert (row.gpus, row.cores) == (service.gpus, len(os.sched_getaffinity(0)))


def test_worker_that_never_began_can_be_closed(settings: Settings) -> None:
    """A worker that is told to end before it is ready ends without an error."""
    Service(settings).close()


def test_orphans_go(service: Service) -> None:
    """A worker that begins deletes the objects that nothing names."""
    with service.database.writing() as session:
        dataset = make_dataset(session)
        dataset.created_at = 1.0
    key = f"datasets/{dataset.id}/7/examples.npy"
    service.storage.put_bytes(key, b"x")
    path = service.storage.local_path(key)
    assert path is not None
    os.utime(path, (1.0, 1.0))
    with closing(service):
        service.start()
        wait_until(lambda: not path.exists())


def test_worker_outlives_its_storage(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A storage that does not answer is logged, and the worker goes on saying that it lives."""
    away = settings.model_copy(update={"storage_url": "s3://none?endpoint=http://127.0.0.1:1&region=none"})
    with pytest.MonkeyPatch.context() as patch, closing(Service(away)) as service:
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        service.database.migrate()
        with service.database.writing() as session:
            make_dataset(session)
        service.start()
        wait_until(lambda: "orphans.failed" in capsys.readouterr().out, seconds=30)
        began = time.time()
        wait_until(lambda: seen_at(service) > began)


def status_of(service: Service, job_id: str) -> str:
    with service.database.reading() as session:
        return session.get_one(Job, job_id).status


def seen_at(service: Service) -> float:
    with service.database.reading() as session:
        return session.scalars(select(Worker.seen_at)).one_or_none() or 0.0
