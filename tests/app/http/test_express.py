"""The short way to a sample gives what the route gives."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import Client, Response

from app.http.express import Express
from tests.app.routes.gallery import gallery

CATS = "/v1/models/cats:1/samples"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


def told(answer: Response) -> tuple[object, ...]:
    own = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    body = answer.content if answer.is_success else {**answer.json(), "request_id": ""} if answer.content else b""
    return answer.status_code, own, body


REQUESTS = [
    ("GET", "/7.png", {}),
    ("HEAD", "/7.png", {}),
    ("GET", "/7.webp?class=cat", {}),
    ("GET", "/7.jpg?class=K%C3%A4fer&truncation=0.5", {}),
    ("GET", "/7.jpeg", {}),
    ("GET", "/7.png?truncation=1", {}),
    ("GET", "/7.png?class=1", {}),
    ("GET", "/7.png", {"If-None-Match": "*"}),
    ("GET", "/7.png", {"If-None-Match": '"other"'}),
    ("GET", "/7.png", {"X-Deadline-Seconds": "20"}),
    ("GET", f"/{2**63 - 1}.png", {}),
    # and what the route has to refuse
    ("GET", f"/{2**63}.png", {}),
    ("GET", "/-1.png", {}),
    ("GET", "/7.bmp", {}),
    ("GET", "/7.png?class=bird", {}),
    ("GET", "/7.png?class=", {}),
    ("GET", "/7.png?truncation=0", {}),
    ("GET", "/7.png?truncation=0.0", {}),
    ("GET", "/7.png?truncation=1.5", {}),
    ("GET", "/7.png?truncation=nan", {}),
    ("GET", "/7.png?truncation=0.5&truncation=0.6", {}),
    ("GET", "/7.png?truncate=0.5", {}),
    ("GET", "/7.png?class=%ff", {}),
    ("GET", "/7.png", [("If-None-Match", '"other"'), ("If-None-Match", "*")]),
    ("GET", "/7.png", [("X-Deadline-Seconds", "20"), ("X-Deadline-Seconds", "20")]),
    ("GET", "/7.png", {"X-Deadline-Seconds": "0"}),
    ("GET", "/7.png", {"X-Deadline-Seconds": "soon"}),
    ("GET", "/7.png", {"X-Deadline-Seconds": "1e9"}),
    ("POST", "/7.png", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), REQUESTS)
def test_both_ways_answer_alike(
    running: tuple[FastAPI, Client],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    headers: dict[str, str] | list[tuple[str, str]],
) -> None:
    """Status, headers and body are the same with the short way and without it."""
    _, client = running
    client.head(f"{CATS}/1.png")  # so that the reference is known
    short = client.request(method, CATS + path, headers=headers)

    async def route(self, scope, receive, send):
        await self.app(scope, receive, send)

    with monkeypatch.context() as patch:
        patch.setattr(Express, "__call__", route)
        long = client.request(method, CATS + path, headers=headers)
    assert told(short) == told(long)


def test_a_plain_request_takes_the_short_way(running: tuple[FastAPI, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its reference is known it does not come to the route any more."""
    _, client = running
    client.head(f"{CATS}/1.png")
    with monkeypatch.context() as patch:
        patch.setattr("app.routes.samples.answer", None)
        assert client.get(f"{CATS}/2.png").status_code == 200
