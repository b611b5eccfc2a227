"""Connections whose other end is slow, over real sockets."""

import asyncio
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from app.http import connections
from tests.serving import serving

HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture
def ended() -> threading.Event:
    """Set when the endless answer is given up, or a body that does not come whole."""
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

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.2)
        return "slow"

    @app.post("/")
    async def echo(request: Request) -> dict[str, Any]:
        try:
            return {"body": len(await request.body()), "headers": len(request.headers)}
        except ClientDisconnect:
            ended.set()
            return {}

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


def answers(connection: socket.socket) -> list[tuple[int, Any]]:
    """All until the connection ends, as status and body."""
    found = b""
    while data := connection.recv(65_536):
        found += data
    parts = re.split(rb"HTTP/1\.1 (?=[0-9])", found)[1:]
    return [(int(part[:3]), json.loads(part.partition(b"\r\n\r\n")[2])) for part in parts]


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


MEGABYTE = b"a" * 2**20
MANY = b"A: b\r\n" * 20_000
CHUNKED = HEAD.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"A: " + MEGABYTE * 20,
        HEAD + b"A: " + MEGABYTE[:70_000] + b"\r\n\r\n",
        HEAD + MANY * 20,
        HEAD + MANY + b"\r\n",
        b"GET /" + MEGABYTE + b" HTTP/1.1\r\n\r\n",
        b"GET /" + MEGABYTE[:70_000] + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\r\n" * 100_000,
        CHUNKED + b"0\r\nA: " + MEGABYTE,
        CHUNKED + b"0\r\n" + MANY * 10,
        CHUNKED + b"1;" + MEGABYTE,
    ],
    ids=["header", "ended", "headers", "many", "address", "line", "empty", "trailer", "trailers", "extension"],
)
def test_a_head_has_a_size(served: httpx.Client, request_: bytes) -> None:
    """What is read before a key can be looked at is bounded, as is what may follow a last chunk; the answer arrives."""
    with connect(served) as connection:
        connection.sendall(request_)
        [(status, body)] = answers(connection)
        assert (status, body["status"], body["code"]) == (431, 431, "request_header_fields_too_large")
    assert served.get("/").json() == "here"


def test_large_heads_and_bodies_below_the_bound_are_taken(served: httpx.Client) -> None:
    """One after another on a connection, in pieces or not; a trailer is no header."""
    for size in (10_000, 60_000, 63_000):
        assert served.get("/", headers={"A": "a" * size}).json() == "here"
        assert served.post("/", content=MEGABYTE).json()["body"] == len(MEGABYTE)
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    with connect(served) as connection:
        connection.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + chunk * 10)
        time.sleep(0.1)
        connection.sendall(b"0\r\nA: b\r\n\r\n")
        assert answers(connection) == [(200, {"body": 655_360, "headers": 3})]


@pytest.mark.parametrize("request_", [b"BAD\r\n\r\n", CHUNKED + b"zz\r\n"], ids=["garbage", "chunk"])
@pytest.mark.parametrize("before", [1, 3])
def test_what_came_before_garbage_is_answered(
    served: httpx.Client, caplog: pytest.LogCaptureFixture, request_: bytes, before: int
) -> None:
    """In order, and then what cannot be read; the log has no error."""
    with connect(served) as connection, caplog.at_level(logging.INFO):
        connection.sendall((HEAD.replace(b"/ ", b"/slow ") + b"\r\n") * before + request_)
        found = answers(connection)
    assert [status for status, _ in found] == [200] * before + [400]
    assert [body for _, body in found[:-1]] == ["slow"] * before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_body_that_breaks_off_into_garbage_is_refused(
    served: httpx.Client, ended: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler, which waits for the rest, is let go."""
    with connect(served) as connection, caplog.at_level(logging.INFO):
        connection.sendall(CHUNKED + b"1\r\na\r\n")
        time.sleep(0.2)
        connection.sendall(b"zz\r\n")
        assert [status for status, _ in answers(connection)] == [400]
    assert ended.wait(5)
    assert served.get("/").json() == "here"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
