from collections.abc import Iterator
from contextlib import closing

import pytest

from app.settings import Settings
from worker.service import Service


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """What a worker process has, over a migrated database, before it was started: no threads, no Redis."""
    service = Service(settings)
    service.database.migrate()
    with closing(service.database):
        yield service
