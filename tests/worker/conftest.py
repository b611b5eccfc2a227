from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.settings import Settings
from app.tables import Dataset
from tests.factories import make_dataset
from worker.service import Service


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """What a worker process has, over a migrated database, before it was started: no threads, no Redis."""
    service = Service(settings)
    service.database.migrate()
    with closing(service.database):
        yield service


@pytest.fixture
def dataset(service: Service, digits_prepared: Path) -> Dataset:
    """The digits, prepared and stored."""
    with service.database.writing() as session:
        dataset = make_dataset(session)
    for path in digits_prepared.iterdir():
        service.storage.put_file(f"{dataset.key}/{path.name}", path)
    return dataset
