"""The life of a worker process beside its tasks."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from app.settings import Settings
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


def test_worker_that_never_began_can_be_closed(settings: Settings) -> None:
    """A worker that is told to end before it is ready ends without an error."""
    Service(settings).close()
