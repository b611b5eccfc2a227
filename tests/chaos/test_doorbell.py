"""The broker may lose, repeat or refuse messages: jobs neither notice nor run twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.chaos.harness import REQUEST, Installation, installation, on_sqlite_alone
from tests.servers import RedisServer, running_redis

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def house_with_own_redis(tmp_path: Path, place: dict[str, str]) -> Iterator[tuple[Installation, RedisServer]]:
    with running_redis() as server, installation(tmp_path, server.url, **place) as house:
        yield house, server


@on_sqlite_alone
def test_nothing_happens(house: Installation, dataset: str, undisturbed: str) -> None:
    """A job that nothing happens to makes the very model that the trainer makes alone."""
    house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert house.statuses(job_id) == ["queued:submitted", "running:claimed", "succeeded:finished"]


def test_submit_while_redis_is_down(
    house_with_own_redis: tuple[Installation, RedisServer], digits_prepared: Path, undisturbed: str
) -> None:
    """A job is accepted at once while Redis is down, and runs once Redis is back."""
    house, server = house_with_own_redis
    dataset = house.add_dataset(digits_prepared)
    _, url = house.start_api()
    house.start_worker()
    house.wait_for_log("celery.* ready")
    server.kill()
    began = time.monotonic()
    answer = httpx.post(f"{url}/v1/jobs", json={"dataset": dataset, **REQUEST})
    assert (answer.status_code, time.monotonic() - began < 2) == (201, True)
    time.sleep(2 * house.settings.sweep_seconds)
    job_id = answer.json()["id"]
    assert house.job(job_id).status == "queued"
    server.start()
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)


@on_sqlite_alone
def test_redis_forgets_everything(house: Installation, dataset: str, undisturbed: str) -> None:
    """FLUSHALL in mid-job disturbs neither the job nor those that wait or come after it."""
    house.start_worker()
    running, waiting = house.submit(dataset), house.submit(dataset)
    house.wait_for_examples(running)
    with redis.Redis.from_url(house.redis_url) as client:
        client.flushall()
    for job_id in (running, waiting):
        house.wait_for_end(job_id)
        house.assert_ended_once(job_id, undisturbed)
    afterwards = house.submit(dataset)
    house.wait_for_end(afterwards)
    house.assert_ended_once(afterwards, undisturbed)


def test_same_doorbell_five_times(house: Installation, dataset: str, undisturbed: str) -> None:
    """Five messages for one job, and two workers who hear them, make one run."""
    house.start_worker()
    house.start_worker()
    job_id = house.submit(dataset)
    for _ in range(5):
        house.bell.ring("train")
        time.sleep(0.2)  # else the rings would be one
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert house.job(job_id).fence == 1
