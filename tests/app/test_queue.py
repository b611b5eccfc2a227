"""The doorbell, against a real Redis that is also killed and started again."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from app.queue import CHANNEL, MOST_RINGS, TASKS, Bell, celery, make_celery
from app.settings import Settings
from tests.servers import RedisServer, running_redis, wait_until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    with running_redis() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(server.url)) as client:
        yield client


@pytest.fixture
def bell(settings: Settings, server: RedisServer) -> Iterator[Bell]:
    with closing(Bell(settings.model_copy(update={"redis_url": server.url}))) as bell:
        yield bell


@pytest.mark.parametrize("queue", list(TASKS))
def test_a_ring_is_one_message(bell: Bell, client: redis.Redis, queue: str) -> None:
    """A ring puts one JSON message without arguments, with the name of the task, into its queue."""
    bell.ring(queue)
    wait_until(lambda: client.llen(queue) == 1)
    message = json.loads(client.lindex(queue, 0))
    assert (message["headers"]["task"], message["content-type"]) == (TASKS[queue], "application/json")
    assert (message["headers"]["eta"], message["headers"]["argsrepr"]) == (None, "()")


def test_several_rings_wake_several(bell: Bell, client: redis.Redis) -> None:
    """Rings for several rows, asked for at once or one by one, are as many messages."""
    bell.ring("train", 2)
    bell.ring("train")
    wait_until(lambda: client.llen("train") == 3)


def test_a_full_queue_is_rung_no_more(bell: Bell, client: redis.Redis) -> None:
    """However often it is rung, the messages that wait stay few."""
    for _ in range(5):
        bell.ring("train", 20)
        bell.ring("io")
        wait_until(lambda: client.llen("io"))
        client.delete("io")
    assert client.llen("train") == MOST_RINGS


def test_news_reaches_subscribers(bell: Bell, client: redis.Redis) -> None:
    """A notice carries the job's id to whoever listens."""
    with closing(client.pubsub(ignore_subscribe_messages=True)) as listener:
        listener.subscribe(CHANNEL)
        wait_until(lambda: client.pubsub_numsub(CHANNEL)[0][1] == 1)
        bell.notify("job_1")
        wait_until(lambda: (message := listener.get_message(timeout=0.1)) and message["data"] == b"job_1")


def test_without_redis_nothing_happens(settings: Settings) -> None:
    """Without a Redis URL ringing does nothing, starts no thread and keeps nothing."""
    before = threading.active_count()
    with closing(Bell(settings)) as bell:
        bell.ring("train")
        bell.notify("job_1")
        assert threading.active_count() == before
        assert (bell._rings, bell._news) == ({}, set())


def test_nobody_waits_for_an_absent_redis(bell: Bell, server: RedisServer, client: redis.Redis) -> None:
    """While Redis is down, ringing returns at once; when it is back, the next ring arrives."""
    bell.ring("train")
    wait_until(lambda: client.llen("train") == 1)
    server.kill()
    started = time.monotonic()
    for _ in range(1000):
        bell.ring("train")
        bell.notify("job_1")
    assert time.monotonic() - started < 0.5
    server.start()

    def rung() -> bool:
        bell.ring("io")
        return bool(client.llen("io"))

    wait_until(rung, unless=redis.ConnectionError)


def test_the_first_ring_after_a_restart_arrives(bell: Bell, server: RedisServer, client: redis.Redis) -> None:
    """A Redis that was restarted between two rings loses none of them to a stale connection."""
    bell.ring("train")
    wait_until(lambda: client.llen("train") == 1)
    server.kill()
    server.start()
    bell.ring("train")
    wait_until(lambda: client.llen("train") == 1, unless=redis.ConnectionError, seconds=10)


def test_what_is_lost_is_logged(
    settings: Settings, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A ring that fails is logged without the password and dropped, and closing does not wait for long."""
    caplog.set_level(logging.WARNING)
    bell = Bell(settings.model_copy(update={"redis_url": "redis://:secret@127.0.0.1:1/0"}))
    bell.ring("train")
    seen: list[str] = []

    def logged() -> bool:
        seen.append(capsys.readouterr().out)
        return "bell.dropped" in "".join(seen)

    wait_until(logged, seconds=20)
    assert "secret" not in "".join(seen)
    started = time.monotonic()
    bell.close()
    assert time.monotonic() - started < 3


def test_settings_that_matter(settings: Settings) -> None:
    """Early ack, no prefetch, no results, JSON only, no remote control: on the workers' app and on the bell's."""
    for app in (celery, make_celery(lambda: settings)):
        conf = app.conf
        assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.task_ignore_result) == (False, False, True)
        assert (conf.worker_prefetch_multiplier, conf.worker_disable_prefetch) == (1, True)
        assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
        assert conf.worker_enable_remote_control is False
        assert conf.broker_transport_options["socket_connect_timeout"] <= 2
