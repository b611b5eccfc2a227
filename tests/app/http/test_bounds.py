"""What the service takes on at once is bounded in bytes, over HTTP, until it was sent."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from httpx import Client
from structlog.testing import capture_logs

from app.http import connections
from tests.app.http.test_leaving import held
from tests.app.routes.asking import JSON, LINES, MIXED, NPZ, RAW, ZIP, ask, unread, written
from tests.app.routes.gallery import gallery
from tests.generators import publish_generator
from tests.servers import wait_until

SAMPLE = "/v1/models/cats:1/samples/1"


def test_large_pictures_are_refused_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After while others that are large are made; small ones are let in, and all when there is room."""
    large = "/v1/models/cats:1/grid.png?seeds=1-2&scale=32"  # 393,216 bytes
    with gallery(tmp_path, sampler_queue_bytes=1_200_000) as (app, client), ThreadPoolExecutor(3) as beside:
        assert client.get(f"{SAMPLE}.png").status_code == 200  # it is loaded
        admission = app.state.sampler.admission
        with held(monkeypatch) as may_go:

            def ask(path: str) -> httpx.Response:
                return httpx.get(f"{client.base_url}{path}", timeout=30, trust_env=False)

            first = [beside.submit(ask, large) for _ in range(2)]
            wait_until(lambda: admission.waiting == 4, seconds=10)
            zipped = {"json": {"model": "cats", "n": 2, "scale": 32}, "headers": {"Accept": "application/zip"}}
            for busy in (client.get(large), client.post("/v1/generations", **zipped)):
                assert (busy.status_code, busy.json()["code"]) == (429, "busy")
                assert int(busy.headers["retry-after"]) >= 1
            small = beside.submit(ask, f"{SAMPLE}.png")
            wait_until(lambda: admission.waiting == 5, seconds=10)
            may_go.set()
            assert {answer.result().status_code for answer in [*first, small]} == {200}
        wait_until(lambda: admission.held_bytes == 0, seconds=10)
        assert client.get(large).status_code == 200


PIXELS = 8 * 8 * 3  # bytes of a sample of cats
WIDE = 512  # of a model whose samples are large as they are
READERS = 3


def get(path: str) -> bytes:
    return f"GET /v1/models/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


LARGE = {  # a request for more than the kernel keeps, and the bytes of its pixels
    "npz": (written(NPZ, n=5000), 5000 * PIXELS),
    "zip": (written(ZIP, n=5000), 5000 * PIXELS),
    "raw": (written(RAW, n=5000), 5000 * PIXELS),
    "one piece": (written(RAW, n=8, scale=32), 8 * 32**2 * PIXELS),
    "lines": (written(LINES, n=5000), 5000 * PIXELS),
    "parts": (written(MIXED, n=5000), 5000 * PIXELS),
    "base64": (written(JSON, n=5000), 5000 * (PIXELS + PIXELS * 4 // 3)),
    "picture": (written("image/png", n=5000), 5000 * PIXELS),
    "grid": (get("cats:1/grid.png?seeds=0-4999&columns=100"), 5000 * PIXELS),
    "enlarged grid": (get("cats:1/grid.png?seeds=0-2499&columns=50&scale=2"), 2500 * 4 * PIXELS),
    "enlarged sample": (get("wide:1/samples/1.raw?scale=2"), 4 * WIDE**2 * 3),
    "the short way": (get("wide:1/samples/1.raw"), WIDE**2 * 3),
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    folder = tmp_path_factory.mktemp("narrow")
    with gallery(folder, sync_generation_limit=200_000, sampler_queue_images=10**6) as (app, client):
        publish_generator(app.state.database, app.state.storage, folder, "wide", size=WIDE, channels=3, width=4)
        for model in ("cats", "wide"):
            assert client.get(f"/v1/models/{model}:1/samples/1.png").status_code == 200  # it is loaded
        yield app, client


@pytest.mark.parametrize(("request_", "size"), LARGE.values(), ids=LARGE)
def test_what_slow_readers_do_not_fetch_is_held(
    narrow: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch, request_: bytes, size: int
) -> None:
    """It keeps answers that would need more than half of what is free away, with Retry-After, and no small ones; all is given back
    when the readers hang up.
    """
    app, client = narrow
    admission = app.state.sampler.admission
    monkeypatch.setattr(admission, "_limit_bytes", (READERS + 1) * size)
    with ExitStack() as readers:
        for _ in range(READERS):
            assert readers.enter_context(unread(client, request_)).recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: admission.waiting == 0, seconds=20)
        time.sleep(0.2)  # in which what can be sent is sent
        assert READERS * size / 2 < admission.held_bytes <= READERS * size
        for accept in (NPZ, JSON):
            busy = ask(client, accept, n=40_000)
            assert (busy.status_code, busy.json()["code"]) == (429, "busy")
            assert int(busy.headers["retry-after"]) >= 1
        for path in ("cats:1/samples/1.png", "cats:1/samples/1.png?scale=2"):
            assert client.get(f"/v1/models/{path}").status_code == 200
    wait_until(lambda: admission.held_bytes == 0, seconds=10)
    assert ask(client, NPZ, n=5000).status_code == 200
    wait_until(lambda: admission.held_bytes == 0, seconds=10)


def test_an_answer_that_nobody_reads_is_given_up(
    narrow: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed after a while, and what was held for it given back, though its reader does not hang up."""
    app, client = narrow
    admission = app.state.sampler.admission
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    for request_, size in (LARGE["npz"], LARGE["base64"], LARGE["the short way"]):
        with unread(client, request_) as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"
            assert admission.held_bytes > size / 2
            wait_until(lambda: admission.held_bytes == 0, seconds=10)


def test_a_reader_that_is_only_slow_gets_all(narrow: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """A large answer may take longer than one that nobody reads, as long as some of it is read all the time."""
    app, client = narrow
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 1.0)
    body = {"model": "cats", "n": 60, "scale": 32, "format": "raw"}
    began, got = time.monotonic(), 0
    with client.stream("POST", "/v1/generations", json=body) as answer:
        for piece in answer.iter_bytes(2**20):
            got += len(piece)
            time.sleep(0.15)
    assert time.monotonic() - began > 2
    assert got == int(answer.headers["content-length"]) > 60 * 32**2 * PIXELS
    wait_until(lambda: app.state.sampler.admission.held_bytes == 0, seconds=10)


def test_a_slow_reader_is_seen_to_read(narrow: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not take so much of an answer at once that for long nobody sees any of it taken."""
    app, client = narrow
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 2.0)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.connect((client.base_url.host, client.base_url.port))
        connection.sendall(written(JSON, n=60, scale=32, format="raw"))
        began = time.monotonic()
        while time.monotonic() - began < 5:
            assert connection.recv(40_000)
            time.sleep(0.1)
        assert app.state.sampler.admission.held_bytes > 0
    wait_until(lambda: app.state.sampler.admission.held_bytes == 0, seconds=10)


@pytest.mark.parametrize("name", ["npz", "base64", "lines"])
def test_who_hangs_up_on_several_answers_leaves_no_traceback(
    narrow: tuple[FastAPI, Client], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Of requests one after the other on a connection the first is under way, and none of the others is begun."""
    app, client = narrow
    with capture_logs() as told:
        with unread(client, LARGE[name][0] * 4) as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        wait_until(lambda: app.state.sampler.admission.held_bytes == 0, seconds=10)
        assert client.get(f"{SAMPLE}.png").status_code == 200
    assert [line for line in told if line["log_level"] not in {"info", "debug"}] == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
