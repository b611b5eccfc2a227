"""Connections whose other end is slow, over real sockets."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPResponse

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.http import connections
from tests.serving import serving

HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture
def ended() -> threading.Event:
    """Set when the endless answer is given up."""
    return threading.Event()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, ended: threading.Event) -> Iterator[httpx.Client]:
    """A service of little patience: `/` answers at once, `/endless` with more than anybody reads."""
    monkeypatch.setattr(connections, "HEADERS_SECONDS", 0.5)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    app = FastAPI()

    @app.get("/")
    async def answer() -> str:
        return "here"

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def forever() -> AsyncIterator[bytes]:
            try:
                while True:
                    await asyncio.sleep(0)
                    yield bytes(65_536)
            finally:
                ended.set()

        return StreamingResponse(forever())

    with serving(app) as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)
    connection.settimeout(10)
    return connection


def ends_without_a_word(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("start", [b"", b"GET", HEAD], ids=["silent", "begun", "no end of headers"])
def test_a_request_that_does_not_come_is_not_waited_for(served: httpx.Client, start: bytes) -> None:
    """The connection is closed, without an answer; others are served before and after."""
    with connect(served) as connection:
        connection.sendall(start)
        assert served.get("/").json() == "here"
        assert ends_without_a_word(connection)
    assert served.get("/").json() == "here"


def test_the_next_request_has_as_much_time(served: httpx.Client) -> None:
    """Each request on a connection may take its time for its head, and no more."""
    with connect(served) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(HEAD)
        assert ends_without_a_word(connection)


def test_an_answer_that_nobody_takes_is_given_up(served: httpx.Client, ended: threading.Event) -> None:
    """What was to be sent is let go of when the other end stops reading."""
    with connect(served) as connection:
        connection.sendall(HEAD.replace(b"/ ", b"/endless ") + b"\r\n")
        assert ended.wait(20)
    assert served.get("/").json() == "here"


@pytest.mark.parametrize(
    "request_",
    [
        b"what is this\r\n\r\n",
        HEAD + b"Content-Length: \r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["no HTTP", "empty length", "two lengths"],
)
def test_what_is_not_http_is_a_problem(served: httpx.Client, request_: bytes) -> None:
    """The answer is of the same kind as every other error, and the connection ends with it."""
    with connect(served) as connection:
        connection.sendall(request_)
        answer = HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert (body["status"], body["code"]) == (400, "bad_request")
        assert answer.headers["x-request-id"] == body["request_id"]
        assert connection.recv(1) == b""
    assert served.get("/").json() == "here"
