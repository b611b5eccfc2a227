"""Clients that hang up, and deadlines, over HTTP: what is done for them ends, and their place becomes free."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import Client
from structlog.testing import capture_logs

from app.http.leaving import UnlessClientLeaves
from models.generator import LoadedGenerator
from tests.app.routes.gallery import gallery
from tests.servers import wait_until

SAMPLE = "/v1/models/cats:1/samples/1.png"
NPZ = "application/x-npz"
BODY = b'{"model": "cats", "seed": 1}'


@contextmanager
def held(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Forwards wait until the event is set, or the block ends."""
    generate, may_go = LoadedGenerator.generate, threading.Event()

    def slow(self: LoadedGenerator, *inputs: Any) -> Any:
        may_go.wait(20)
        return generate(self, *inputs)

    with patch.context() as here:
        here.setattr(LoadedGenerator, "generate", slow)
        try:
            yield may_go
        finally:
            may_go.set()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path, sampler_queue_images=3) as running:
        assert running[1].get(SAMPLE).status_code == 200  # it is loaded
        yield running


REQUESTS = {
    "the short way": f"GET {SAMPLE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "the route": f"GET {SAMPLE}?scale=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "a grid": b"GET /v1/models/cats:1/grid.png?seeds=1-2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a film": b"GET /v1/models/cats:1/interpolation.webp?class=cat&frames=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    **{
        accept: f"POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: {accept}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        + BODY
        for accept in ("application/json", "application/x-ndjson", "multipart/mixed", "application/octet-stream")
    },
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_one_who_hangs_up_while_waiting_frees_the_place(
    running: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """Whatever was asked for, its place is free before anything is made."""
    app, client = running
    admission = app.state.sampler.admission
    with held(monkeypatch):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(request_)
            wait_until(lambda: admission.waiting > 0, seconds=10)
        wait_until(lambda: admission.waiting == 0, seconds=10)
    assert client.get(SAMPLE).status_code == 200


@pytest.mark.parametrize("path", [SAMPLE, f"{SAMPLE}?scale=2"])
def test_a_deadline_that_passes_is_a_504(
    running: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """deadline_exceeded, by the short way and by the route; its place is free then, and others have theirs."""
    app, client = running
    admission = app.state.sampler.admission
    with held(monkeypatch) as may_go, ThreadPoolExecutor(1) as beside:
        patient = beside.submit(httpx.get, f"{client.base_url}{SAMPLE}", timeout=30, trust_env=False)
        wait_until(lambda: admission.waiting == 1, seconds=10)
        admission._pace = lambda: 0.0  # by which nobody is late beforehand
        answers = [client.get(path, headers={"X-Deadline-Seconds": "1"})]
        headers = {"X-Deadline-Seconds": "1", "Accept": "application/zip"}
        answers.append(client.post("/v1/generations", json={"model": "cats", "n": 2}, headers=headers))
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            assert answer.headers["content-type"] == "application/problem+json"
        assert admission.waiting == 1
        may_go.set()
        assert patient.result().status_code == 200
    assert client.get(path, headers={"X-Deadline-Seconds": "20"}).status_code == 200


@pytest.mark.parametrize(
    "accept", ["application/x-ndjson", "multipart/mixed", "application/zip", NPZ, "application/octet-stream"]
)
def test_a_deadline_that_passes_in_the_answer_breaks_it_off(
    running: tuple[FastAPI, Client],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    accept: str,
) -> None:
    """Nobody can take what came for the whole; the log has a line of it, and not the traceback of a mistake."""
    app, client = running
    generate = LoadedGenerator.generate

    def slow(self: LoadedGenerator, *inputs: Any) -> Any:
        time.sleep(0.2)
        return generate(self, *inputs)

    monkeypatch.setattr(LoadedGenerator, "generate", slow)
    body = {"model": "cats", "n": 1024, "scale": 1 if accept == NPZ else 16}
    headers = {"Accept": accept, "X-Deadline-Seconds": "1.5"}
    with capture_logs() as lines:
        with client.stream("POST", "/v1/generations", json=body, headers=headers) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()
        wait_until(lambda: app.state.sampler.admission.held_bytes == 0, seconds=10)
    assert [line["event"] for line in lines if line["log_level"] != "info"] == ["download broken off"]
    assert not caplog.records


@pytest.mark.parametrize("path", [SAMPLE, f"{SAMPLE}?scale=2"])
def test_what_cannot_be_in_time_is_refused_at_once(
    running: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """429 with Retry-After while others are in the way, 504 without where it is its own time; without a deadline there is room."""
    app, client = running
    admission = app.state.sampler.admission
    with held(monkeypatch) as may_go, ThreadPoolExecutor(2) as beside:

        def ask(path: str) -> Any:
            return beside.submit(httpx.get, f"{client.base_url}{path}", timeout=30, trust_env=False)

        first = ask(SAMPLE)
        wait_until(lambda: admission.waiting == 1, seconds=10)
        admission._pace = lambda: 1.0
        busy = client.get(path, headers={"X-Deadline-Seconds": "1.5"})
        assert (busy.status_code, busy.json()["code"]) == (429, "busy")
        assert (
            busy.headers["retry-after"] == "1"
        )  # one before it and itself, a second each, less what it has, rounded up
        hopeless = client.get(path, headers={"X-Deadline-Seconds": "0.5"})
        assert (hopeless.status_code, hopeless.json()["code"]) == (504, "deadline_exceeded")
        assert "retry-after" not in hopeless.headers
        second = ask(path)
        wait_until(lambda: admission.waiting == 2, seconds=10)
        may_go.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_too_many_for_their_deadline_are_told_so_alone(tmp_path: Path) -> None:
    """504 at once, without Retry-After; the same samples come when there is time."""
    with gallery(tmp_path, sync_generation_limit=100_000) as (app, client):
        assert client.get(SAMPLE).status_code == 200
        body = {"model": "cats", "n": 100_000}
        late = client.post("/v1/generations", json=body, headers={"X-Deadline-Seconds": "0.02", "Accept": NPZ})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert "ask for fewer" in late.json()["detail"]
        assert "retry-after" not in late.headers
        assert app.state.sampler.admission.waiting == 0
        few = client.post("/v1/generations", json=body | {"n": 10}, headers={"X-Deadline-Seconds": "20", "Accept": NPZ})
        assert few.status_code == 200


@pytest.mark.parametrize("value", ["0", "-1", "601", "nan", "inf", "soon", ""])
def test_a_deadline_is_a_number_of_seconds(running: tuple[FastAPI, Client], value: str) -> None:
    """What is none, or longer than any may be, is refused by name, in each way to a sample."""
    _, client = running
    headers = {"X-Deadline-Seconds": value}
    answers = [
        client.get(path, headers=headers) for path in (SAMPLE, f"{SAMPLE}?scale=2", "/v1/models/cats:1/grid.png")
    ]
    answers.append(client.post("/v1/generations", json={"model": "cats"}, headers=headers))
    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].lower().endswith("x-deadline-seconds")


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def there() -> dict[str, Any]:
    await asyncio.sleep(60)
    return {"type": "http.request"}


def test_the_block_ends_when_the_client_leaves() -> None:
    """And `left` tells; the task that it was in goes on."""

    async def scenario() -> None:
        with UnlessClientLeaves(gone) as leaving:
            await asyncio.sleep(60)
        assert leaving.left
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_block_that_ends_by_itself_is_left_alone() -> None:
    """Its result counts, sooner or later than the watch begins, and nothing watches on."""

    async def scenario() -> None:
        for seconds in (0, 0.1):
            with UnlessClientLeaves(there) as leaving:
                await asyncio.sleep(seconds)
            assert not leaving.left
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_an_outer_cancellation_goes_through(seconds: float) -> None:
    """A server that stops cancels the task: that is not taken for a client who left, before and while it is watched."""

    async def block() -> None:
        with UnlessClientLeaves(there):
            await asyncio.sleep(60)

    async def scenario() -> None:
        task = asyncio.create_task(block())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_an_outer_cancellation_goes_through_though_the_client_left_too() -> None:
    """Both at once: whoever cancelled the task is obeyed."""
    may_leave = asyncio.Event()

    async def leaves() -> dict[str, Any]:
        await may_leave.wait()
        return {"type": "http.disconnect"}

    async def block() -> None:
        with UnlessClientLeaves(leaves):
            await asyncio.sleep(60)

    async def scenario() -> None:
        task = asyncio.create_task(block())
        await asyncio.sleep(0.1)
        may_leave.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_an_error_of_the_block_comes_through() -> None:
    """What the work raises is not swallowed, though the client left in the meantime."""

    async def block() -> None:
        with UnlessClientLeaves(gone):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ValueError("of its own") from None

    async def scenario() -> None:
        with pytest.raises(ValueError, match="of its own"):
            await block()

    asyncio.run(asyncio.wait_for(scenario(), 10))
