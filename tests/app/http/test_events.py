"""Event streams: replay, resume, news by Redis and without it, their end."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from app import jobs
from app.client.transport import Message, parse_messages
from app.main import create_app
from app.settings import Settings
from tests.factories import claimed, make_job
from tests.servers import RedisServer, wait_until
from tests.serving import serving

SSE = {"Accept": "text/event-stream"}


def running_job(app: FastAPI) -> jobs.get:
    with app.state.database.writing() as session:
        return claimed(session, make_job(session))


def report(app: FastAPI, job, *seen: int, kind: str = "metrics") -> None:
    with app.state.database.writing() as session:
        jobs.report(session, job.id, job.fence, [jobs.NewEvent(kind, {"loss_g": 1.0}, n, 1.0) for n in seen])


def finish(app: FastAPI, job) -> None:
    with app.state.database.writing() as session:
        jobs.fail(session, job.id, job.fence, "diverged", "It diverged.")


@contextmanager
def listening(client: httpx.Client, job, headers=None, **params) -> Iterator[list[Message]]:
    """Messages as they arrive, read by a thread that ends with the stream."""
    messages: list[Message] = []

    def read() -> None:
        url = f"/v1/jobs/{job.id}/events"
        with client.stream("GET", url, headers=SSE | (headers or {}), params=params) as response:
            messages.extend(parse_messages(response.iter_lines()))

    thread = threading.Thread(target=read)
    thread.start()
    yield messages
    thread.join(timeout=20)
    assert not thread.is_alive(), "the stream did not end"


def test_the_list_and_the_stream_tell_the_same(app: FastAPI, client: httpx.Client) -> None:
    """The stream replays every row, `id` its seq and `event` its kind, and ends after the terminal status."""
    job = running_job(app)
    report(app, job, 32, 64)
    finish(app, job)
    listed = client.get(f"/v1/jobs/{job.id}/events").json()
    assert listed["next_cursor"] is None
    with listening(client, job) as messages:
        pass
    assert [json.loads(message.data) for message in messages] == listed["data"]
    assert [message.id for message in messages] == [str(event["seq"]) for event in listed["data"]]
    assert [message.event for message in messages] == ["status", "status", "metrics", "metrics", "status"]
    assert json.loads(messages[-1].data)["data"]["status"] == "failed"


def test_a_stream_goes_on_after_last_event_id(app: FastAPI, client: httpx.Client) -> None:
    """Last-Event-ID goes before `after`; nothing comes twice and nothing is left out."""
    job = running_job(app)
    report(app, job, 32, 64, 96)
    finish(app, job)
    everything = client.get(f"/v1/jobs/{job.id}/events").json()["data"]
    with listening(client, job, headers={"Last-Event-ID": "3"}, after=1) as messages:
        pass
    assert [int(message.id) for message in messages] == [event["seq"] for event in everything if event["seq"] > 3]
    with listening(client, job, after=4) as messages:
        pass
    assert [int(message.id) for message in messages] == [event["seq"] for event in everything if event["seq"] > 4]


def test_a_finished_stream_is_not_asked_again(app: FastAPI, client: httpx.Client) -> None:
    """204 when a finished job has nothing more: an EventSource stops reconnecting."""
    job = running_job(app)
    finish(app, job)
    last = client.get(f"/v1/jobs/{job.id}/events").json()["data"][-1]["seq"]
    response = client.get(f"/v1/jobs/{job.id}/events", headers=SSE | {"Last-Event-ID": str(last)})
    assert (response.status_code, response.content) == (204, b"")


def test_only_the_kinds_that_were_asked_for(app: FastAPI, client: httpx.Client) -> None:
    """`type` filters list and stream, which ends with the job although the last status is left out."""
    job = running_job(app)
    report(app, job, 32)
    report(app, job, 40, kind="log")
    with listening(client, job, type=["metrics", "log"]) as messages:
        wait_until(lambda: len(messages) == 2, seconds=10)
        report(app, job, 64)
        wait_until(lambda: len(messages) == 3, seconds=10)
        finish(app, job)
    assert [message.event for message in messages] == ["metrics", "log", "metrics"]


def test_news_comes_by_polling_without_redis(app: FastAPI, client: httpx.Client) -> None:
    """Each event reaches every open stream soon after it was committed."""
    job = running_job(app)
    with listening(client, job) as first, listening(client, job) as second:
        for seen in (32, 64):
            before = len(first)
            report(app, job, seen)
            wait_until(lambda n=before: len(first) > n and len(second) > n, seconds=10)
        finish(app, job)
    assert [message.id for message in first] == [message.id for message in second]


def test_news_comes_at_once_by_redis(settings: Settings, redis_server: RedisServer) -> None:
    """With Redis a notice wakes the stream long before the next poll."""
    app = create_app(settings.model_copy(update={"redis_url": redis_server.url, "follow_seconds": 60}))
    with serving(app) as client:
        wait_until(lambda: app.state.follower._hears_redis, seconds=10)
        job = running_job(app)
        with listening(client, job) as messages:
            wait_until(lambda: len(messages) == 2, seconds=10)
            report(app, job, 32)
            began = time.monotonic()
            app.state.bell.notify(job.id)
            wait_until(lambda: len(messages) == 3, seconds=10)
            assert time.monotonic() - began < 5
            finish(app, job)
            app.state.bell.notify(job.id)


def test_a_stream_outlives_redis(settings: Settings) -> None:
    """While Redis is away the database is asked; when it comes back its notices count again."""
    server = RedisServer()
    server.start()
    try:
        app = create_app(settings.model_copy(update={"redis_url": server.url}))
        with serving(app) as client:
            wait_until(lambda: app.state.follower._hears_redis, seconds=10)
            job = running_job(app)
            with listening(client, job) as messages:
                wait_until(lambda: len(messages) == 2, seconds=10)
                server.kill()
                report(app, job, 32)
                wait_until(lambda: len(messages) == 3, seconds=10)
                server.start()
                wait_until(lambda: app.state.follower._hears_redis, seconds=10)
                finish(app, job)
                app.state.bell.notify(job.id)
    finally:
        server.kill()


def test_a_silent_stream_shows_that_it_lives(settings: Settings) -> None:
    """Comments come every ping_seconds."""
    app = create_app(settings.model_copy(update={"ping_seconds": 0.1}))
    with serving(app) as client:
        job = running_job(app)
        with client.stream("GET", f"/v1/jobs/{job.id}/events", headers=SSE) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-cache"
            pings = 0
            for line in response.iter_lines():
                pings += line.startswith(":")
                if pings == 3:
                    break


def test_streams_hold_no_connection(app: FastAPI, client: httpx.Client) -> None:
    """With many streams open and waiting, the pool has lent nothing out; when clients leave, nobody is told any more."""
    job = running_job(app)
    with httpx.Client(base_url=client.base_url, limits=httpx.Limits(max_connections=100), trust_env=False) as many:
        streams = [many.stream("GET", f"/v1/jobs/{job.id}/events", headers=SSE) for _ in range(60)]
        for stream in streams:
            stream.__enter__()
        wait_until(lambda: len(app.state.follower._waiting.get(job.id, ())) == 60, seconds=20)
        wait_until(lambda: app.state.database.engine.pool.checkedout() == 0, seconds=10)
        assert client.get("/v1/jobs").status_code == 200
        for stream in streams:
            stream.__exit__(None, None, None)
    report(app, job, 32)
    wait_until(lambda: not app.state.follower._waiting, seconds=20)


def test_a_stream_ends_when_its_job_is_deleted(app: FastAPI, client: httpx.Client) -> None:
    """Nothing more can come."""
    with app.state.database.writing() as session:
        job = make_job(session)
    with listening(client, job) as messages:
        wait_until(lambda: len(messages) == 1, seconds=10)
        assert client.delete(f"/v1/jobs/{job.id}").status_code == 204


def test_long_lists_come_in_pages(app: FastAPI, client: httpx.Client) -> None:
    """next_cursor, given as `after`, leads through all."""
    job = running_job(app)
    report(app, job, *range(1, 1101))
    seqs, after = [], "0"
    while after is not None:
        page = client.get(f"/v1/jobs/{job.id}/events", params={"after": after}).json()
        seqs += [event["seq"] for event in page["data"]]
        after = page["next_cursor"]
    assert seqs == list(range(1, 1103))


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({"Last-Event-ID": "x"}, {}),
        ({"Last-Event-ID": "-1"}, {}),
        ({}, {"after": 2**63}),
        ({}, {"after": -1}),
        ({}, {"type": "gossip"}),
    ],
)
def test_bad_positions_are_refused(app: FastAPI, client: httpx.Client, headers, params) -> None:
    """422, for a stream as for a list."""
    job = running_job(app)
    for accept in (SSE, {}):
        response = client.get(f"/v1/jobs/{job.id}/events", headers=headers | accept, params=params)
        assert response.status_code == 422
