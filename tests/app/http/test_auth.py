"""Who may come in."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.http.auth import OpenToNetwork, check_bind
from app.main import create_app
from app.settings import Settings
from tests.serving import serving
from tests.source import HOUSE

KEYS = ("first-key", "second-key")
OPEN = ("/", "/docs", "/redoc", "/openapi.json", "/static/swagger.js", "/health/live", "/health/ready")
OPEN_STATUS = {200, 307}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Calls a service that asks for keys."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("guarded") / "data", api_keys=KEYS)
    with serving(create_app(settings)) as client:
        yield client


@pytest.mark.parametrize("path", OPEN)
def test_health_and_docs_are_open(guarded: httpx.Client, path: str) -> None:
    """They need no key."""
    assert guarded.get(path).status_code in OPEN_STATUS


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_key_opens(guarded: httpx.Client, scheme: str, key: str) -> None:
    """Any of the keys, as a bearer token."""
    assert guarded.get("/v1/jobs", headers={"Authorization": f"{scheme} {key}"}).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer first-ke",
        "Bearer first-keyy",
        "Basic first-key",
        "first-key",
        "Bearer first-key second-key",
        "Bearer \xff",
    ],
)
def test_anything_else_does_not(guarded: httpx.Client, authorization: str | None) -> None:
    """401 with a challenge, as a problem."""
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    response = guarded.get("/v1/jobs", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "unauthorized"
    assert response.headers["x-request-id"] == response.json()["request_id"]


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [("Bearer", "An API key is needed"), ("Bearer x", "This key is not known")],
)
def test_no_key_is_no_wrong_key(guarded: httpx.Client, authorization: str, reason: str) -> None:
    """A header without a token, as an empty variable gives it, is told apart from one with another."""
    response = guarded.get("/v1/jobs", headers={"Authorization": authorization})
    assert response.json()["detail"].startswith(reason)


def test_every_operation_asks_for_a_key(guarded: httpx.Client) -> None:
    """Each of the document's operations but health answers 401 without one, as do unknown paths and wrong methods."""
    document = guarded.get("/openapi.json").json()
    asked = [(method, path) for path, operations in document["paths"].items() for method in operations]
    for method, path in [*asked, ("get", "/v1/nothing"), ("post", "/docs/x"), ("put", "/v1/jobs"), ("get", "/health")]:
        expected = OPEN_STATUS if path.startswith("/health/") else {401}
        assert guarded.request(method, path).status_code in expected, (method, path)


def test_a_stranger_is_turned_away_before_the_body(guarded: httpx.Client) -> None:
    """401 comes while the body has yet to be sent."""
    address = (guarded.base_url.host, guarded.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_without_keys_this_machine_may_call(caller: httpx.Client, host: str) -> None:
    """By any of its own names."""
    assert caller.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "user@localhost"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/docs", "/health/ready"])
def test_without_keys_foreign_pages_may_not(caller: httpx.Client, path: str, headers: dict[str, str]) -> None:
    """A rebound name or a page of another origin gets 403."""
    response = caller.get(path, headers=headers)
    assert response.status_code == 403
    assert response.json()["code"] == "forbidden"


def test_our_own_pages_and_links_may(caller: httpx.Client) -> None:
    """The docs page's requests carry our origin; a link that was clicked elsewhere is a navigation."""
    own = {"Origin": str(caller.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert caller.get("/v1/jobs", headers=own).status_code == 200
    assert (
        caller.get("/docs", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    )


def test_keys_may_be_used_from_anywhere(guarded: httpx.Client) -> None:
    """With keys the name and origin do not matter: a page has none of its own to send."""
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Host": "ganvil.example", "Origin": "https://app.example"}
    assert guarded.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "localhost.example"])
def test_open_addresses_need_keys(settings: Settings, host: str) -> None:
    """Neither the check nor the application lets a network in without keys, and the message says how to make one."""
    with pytest.raises(OpenToNetwork, match=r"GANVIL_API_KEYS.*ganvil key"):
        check_bind(host, ())
    with pytest.raises(OpenToNetwork):
        create_app(settings.model_copy(update={"host": host}))
    check_bind(host, ["key"])


@pytest.mark.parametrize(("key", "warned"), [("sesame", True), ("x" * 15, True), ("x" * 16, False)])
def test_short_keys_are_warned_of(tmp_path: Path, key: str, warned: bool) -> None:
    """`python -m app` says that such a key can be guessed and how to make a better one, and not what it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends by itself
        port = taken.getsockname()[1]
        keys = f"{'y' * 20},{key}"
        env = os.environ | {"GANVIL_PORT": str(port), "GANVIL_API_KEYS": keys, "GANVIL_DATA_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "app"]
        ended = subprocess.run(command, cwd=HOUSE, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert ("`ganvil key` makes one" in ended.stderr) is warned
    assert key not in ended.stderr


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_none(host: str) -> None:
    """Only this machine reaches it."""
    check_bind(host, ())


async def call(app, client: tuple[str, int] | None) -> int:
    transport = httpx.ASGITransport(app, client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
        return (await caller.get("/health/live")).status_code


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("192.168.1.7", 403), ("10.0.0.1", 403)]
)
def test_without_keys_only_local_peers(settings: Settings, peer: str, status: int) -> None:
    """Whatever uvicorn was told to listen to, a peer from elsewhere gets 403."""
    import asyncio

    assert asyncio.run(call(create_app(settings), (peer, 5))) == status
