"""Fixtures that everybody shares. Servers, databases and child processes are real; only the network is out of reach."""

import itertools
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from app.db import Database
from app.settings import Settings
from app.storage import Storage
from app.tables import Base
from tests.servers import RedisServer, running_postgres, running_redis

pytest_plugins = ["tests.needs", "tests.live", "tests.s3"]

hypothesis.settings.register_profile("ganvil", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ganvil")

_numbers = itertools.count()
# To a PostgreSQL URL: all the time that a test needs which holds a transaction open on a busy machine.
PATIENTLY = "?options=-c%20lock_timeout%3D30s%20-c%20idle_in_transaction_session_timeout%3D60s"


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith("GANVIL_") and name != "GANVIL_TEST_ALL"]:
        del os.environ[name]  # what the shell of a developer says is not under test
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # child processes run beside one another on few cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test has an id of its own: of those with one id, processes that share the tests run only the first."""
    for item in items:
        if not item.nodeid.endswith(item.name):
            # pytest 9.2 takes ids from what it parametrizes itself, and operations are schemathesis's.
            item._id = item.id.with_params(item.name.partition("[")[2].removesuffix("]"))
    twice = [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"Several tests have one id: {', '.join(twice)}")


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuses every connection that would leave this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or address[0] in {"127.0.0.1", "::1", "localhost"}
        assert local, f"a test reaches for the network: {address}"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything in a folder of the test's own, times short enough to wait for, no Redis."""
    return Settings(
        data_dir=tmp_path / "data",
        lease_seconds=3,
        renew_seconds=0.5,
        sweep_seconds=0.2,
        ring_seconds=1,
        stop_grace_seconds=20,
        follow_seconds=0.1,
        trainer_threads=1,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A migrated and empty SQLite database."""
    with closing(Database(settings)) as database:
        database.migrate()
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
def any_database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Database]:
    """A migrated and empty database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("database")
        return
    url = request.getfixturevalue("_postgres_migrated") + PATIENTLY
    with closing(Database(settings.model_copy(update={"database_url": url}))) as database:
        with database.writing() as session:  # much faster than a new one
            session.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)}"))
        yield database


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis; `url` has its password."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running PostgreSQL, without a database. Tests that use it are marked `needs("postgres")`."""
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def _postgres_migrated(postgres_server: str) -> str:
    url = _new_database(postgres_server)
    with closing(Database(Settings(database_url=url))) as database:
        database.migrate()
    return url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database of the test's own, without tables."""
    return _new_database(postgres_server)


def _new_database(postgres_server: str) -> str:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres_server}/{name}"


@pytest.fixture(scope="session")
def digits_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 200 real handwritten digits, 8 x 8 x 1, in ten classes."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    examples = np.round(digits.images[:200] * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target[:200].astype(np.int64)
    counts = np.bincount(labels, minlength=10)
    np.save(folder / "examples.npy", examples)
    np.save(folder / "labels.npy", labels)
    described = {
        "examples": 200,
        "height": 8,
        "width": 8,
        "channels": 1,
        "classes": [{"name": str(digit), "count": int(count)} for digit, count in enumerate(counts)],
        "sha256": "d" * 64,
        "report": {"skipped": [], "skipped_total": 0, "duplicates": 0, "sizes": [], "conversions": {}},
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return folder
