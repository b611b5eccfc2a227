"""Signed addresses, from asking for them to following them."""

import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import Client, Response

from app import jobs
from app.client import Client as Ganvil
from app.client.transport import parse_messages
from app.main import create_app
from app.settings import Settings
from tests.app.routes.gallery import gallery
from tests.factories import claimed, make_job
from tests.serving import serving

KEYS = ("first-key-with-32-characters-0001", "other-key-with-32-characters-0002", "sesame")
SAMPLE = "/v1/models/cats:1/samples/7.png?class=cat"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery"), api_keys=KEYS) as running:
        yield running


@pytest.fixture
def app(running: tuple[FastAPI, Client]) -> FastAPI:
    return running[0]


@pytest.fixture
def client(running: tuple[FastAPI, Client]) -> Client:
    """Sends no key."""
    return running[1]


def bearer(key: str = KEYS[0]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(client: Client, *urls: str, key: str = KEYS[0], **more: object) -> Response:
    return client.post("/v1/signed-urls", json={"urls": urls, **more}, headers=bearer(key))


def sign(client: Client, url: str, **more: object) -> str:
    (found,) = ask(client, url, **more).json()["data"]
    signed: str = found["url"]
    return signed


def test_a_signed_address_needs_no_key(client: Client) -> None:
    """It gives the bytes that the key gives, by GET and HEAD and also for a page of another origin."""
    signed = sign(client, SAMPLE)
    assert client.get(SAMPLE).status_code == 401
    with_key, embedded = client.get(SAMPLE, headers=bearer()), client.get(signed)
    assert (embedded.status_code, embedded.content) == (200, with_key.content)
    assert embedded.headers["etag"] == with_key.headers["etag"]
    foreign = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    page = client.get(signed, headers=foreign)
    assert (page.status_code, page.headers["access-control-allow-origin"]) == (200, "*")
    assert page.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "access-control-allow-origin" not in with_key.headers
    assert client.head(signed).headers["etag"] == with_key.headers["etag"]
    assert client.get(signed, headers={"If-None-Match": with_key.headers["etag"]}).status_code == 304


def test_addresses_come_back_in_order_and_say_when_they_end(client: Client) -> None:
    """As many as were asked for, absolute where they were, an hour long unless told otherwise."""
    host = f"http://{client.base_url.host}:{client.base_url.port}"
    urls = [SAMPLE, f"{host}{SAMPLE}", "/v1/models/ink/grid.png?seeds=0-3"]
    before = datetime.now(UTC)
    data = ask(client, *urls).json()["data"]
    assert [found["url"].startswith(url) for found, url in zip(data, urls, strict=True)] == [True] * 3
    assert [client.get(found["url"]).status_code for found in data] == [200] * 3
    (end,) = {datetime.fromisoformat(found["expires_at"]) for found in data}
    assert timedelta(seconds=3598) < end - before < timedelta(seconds=3605)


@pytest.mark.parametrize("url", [SAMPLE, "/v1/models/cats:1/grid.png?seeds=0-3", "/v1/models/ink:1/download"])
def test_no_cache_keeps_it_longer_than_it_is_good(client: Client, url: str) -> None:
    """Neither shared nor for ever, whatever the address has otherwise."""
    kept = client.get(sign(client, url, expires_seconds=100)).headers["cache-control"]
    assert "public" not in kept
    assert "immutable" not in kept
    age = re.search(r"max-age=([0-9]+)", kept)
    assert kept == "private, no-cache" or (age is not None and 0 < int(age[1]) <= 100)


def test_it_is_good_for_nothing_else(client: Client) -> None:
    """Another path, another query, another method: 403, with a key beside it or without, and it says which is the matter."""
    signed = sign(client, SAMPLE)
    others = [
        client.get(signed.replace("samples/7", "samples/8")),
        client.get(signed.replace("class=cat", "class=1")),
        client.get(f"{signed}&truncation=0.5"),
        client.get(signed.replace("class=cat&", "")),
        client.get(f"{signed}x"),
        client.get(f"/v1/jobs?{signed.partition('?')[2]}"),
        client.get(f"/v1/models/cats:1/samples/7.png?{signed.partition('&')[2]}", headers=bearer()),
        client.post(signed),
        client.delete(signed.replace("/samples/7.png", "")),
        client.request("OPTIONS", signed),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in others] == [(403, "wrong_signature")] * len(
        others
    )
    assert all("expire" not in answer.json()["detail"] for answer in others)


def test_an_expired_one_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 with a code of its own, so that a page knows to ask for a new one; a page of any origin can read it."""
    signed = sign(client, SAMPLE, expires_seconds=10)
    later = datetime.now(UTC).timestamp() + 11
    monkeypatch.setattr("app.http.auth.time.time", lambda: later)
    answer = client.get(signed)
    assert (answer.status_code, answer.json()["code"]) == (403, "address_expired")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert client.get(signed.replace("/7.", "/8.")).json()["code"] == "wrong_signature"


def test_a_wrong_one_is_turned_away_before_the_body(client: Client) -> None:
    """403 comes while the body has yet to be sent."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        start = b"POST /v1/datasets?signature=x&expires=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(start)
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


def test_events_can_be_followed(app: FastAPI, client: Client) -> None:
    """As an EventSource does, which sends no key: the stream, and 204 after its end."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session))
        jobs.fail(session, job.id, job.fence, "diverged", "It diverged.")
    signed = sign(client, f"/v1/jobs/{job.id}/events?type=status")
    with client.stream("GET", signed, headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["cache-control"] == "private, no-cache"
        messages = list(parse_messages(stream.iter_lines()))
    assert {message.event for message in messages} == {"status"}
    again = {"Accept": "text/event-stream", "Last-Event-ID": str(messages[-1].id)}
    assert client.get(signed, headers=again).status_code == 204


@pytest.mark.parametrize(
    ("urls", "pointer", "said"),
    [
        ([], "#/urls", "at least 1"),
        ([SAMPLE] * 1001, "#/urls", "at most 1000"),
        ([SAMPLE, "/v1/jobs"], "#/urls/1", "cannot be signed"),
        (["https://evil.example/v1/models/a/download"], "#/urls/0", "evil.example"),
        (["/v1/models/ink/download?" + "x" * 10_000], "#/urls/0", "at most 10000"),
        ([7], "#/urls/0", "string"),
    ],
)
def test_what_cannot_be_signed_is_named(client: Client, urls: list[str], pointer: str, said: str) -> None:
    """422 with the place in the list and the reason."""
    answer = ask(client, *urls)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert said in error["detail"]


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 1.5, "60", None])
def test_times_are_bounded(client: Client, seconds: object) -> None:
    """From a second to a week, whole."""
    answer = ask(client, SAMPLE, expires_seconds=seconds)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/expires_seconds")


def test_a_short_key_does_not_sign(client: Client, tmp_path: Path) -> None:
    """Whoever sees a signature could guess it; with a secret besides it may."""
    answer = ask(client, SAMPLE, key="sesame")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "GANVIL_SIGNING_SECRET" in answer.json()["detail"]
    with gallery(tmp_path, api_keys=("sesame",), signing_secret="a secret of the service") as (_, other):
        assert other.get(sign(other, SAMPLE, key="sesame")).status_code == 200


def test_processes_and_restarts_agree_until_the_key_is_gone(client: Client, tmp_path: Path) -> None:
    """Another process with the same keys takes the address; one without the key that signed refuses it."""
    signed = [sign(client, SAMPLE, key=key) for key in KEYS[:2]]
    store = {"data_dir": tmp_path / "data", "sweep_seconds": 60}
    for keys, admitted in ((KEYS, [True, True]), (KEYS[1:], [False, True])):
        with serving(create_app(Settings(api_keys=keys, **store))) as other:
            answers = [other.get(url) for url in signed]
            assert [answer.status_code != 403 for answer in answers] == admitted


def test_without_keys_nothing_needs_to_be_signed(caller: Client) -> None:
    """The addresses come back as they are, after the same checks, and work."""
    answer = caller.post("/v1/signed-urls", json={"urls": ["/v1/models/ink/grid.png"]})
    assert answer.status_code == 200
    assert answer.json()["data"][0]["url"] == "/v1/models/ink/grid.png"
    assert caller.post("/v1/signed-urls", json={"urls": ["/v1/jobs"]}).status_code == 422


def test_the_client_makes_them_whole(client: Client) -> None:
    """Each is a URL that a browser can follow, with the time at which it ends."""
    with Ganvil(str(client.base_url), KEYS[0]) as ganvil:
        (found,) = ganvil.sign([SAMPLE], seconds=60)
    assert found.url.startswith(str(client.base_url).rstrip("/") + SAMPLE)
    assert client.get(found.url).status_code == 200
