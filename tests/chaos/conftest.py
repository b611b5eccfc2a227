from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.chaos.harness import Installation, installation, train_alone
from tests.servers import RedisServer


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
def place(request: pytest.FixtureRequest) -> dict[str, str]:
    """What to set for an installation to keep its rows in a database of its own, of each kind."""
    return {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("postgres_url")}


@pytest.fixture
def house(tmp_path: Path, redis_url: str, place: dict[str, str]) -> Iterator[Installation]:
    """An installation without workers yet."""
    with installation(tmp_path, redis_url, **place) as house:
        yield house


@pytest.fixture
def dataset(house: Installation, digits_prepared: Path) -> str:
    return house.add_dataset(digits_prepared)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, digits_prepared: Path) -> str:
    """The sha256 of the model that the job makes when nothing happens to it, not even a service."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with installation(folder, redis_server.url) as house:
        return train_alone(house.database, house.add_dataset(digits_prepared), digits_prepared, folder / "run")
