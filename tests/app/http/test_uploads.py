"""Uploads over HTTP."""

import io
import resource
import socket
import time
import zipfile
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import Client

from app import datasets
from app.main import create_app
from app.settings import Settings
from tests.factories import make_job
from tests.servers import wait_until
from tests.serving import serving

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'


def archive() -> bytes:
    """The same bytes each time: there is no clock in them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("cats/1.png"), b"not looked at before it is prepared")
    return buffer.getvalue()


def upload(client: Client, content: bytes | None = None, headers: dict[str, str] | None = None, **fields: str):
    files = {"file": ("My cats.zip", archive() if content is None else content)}
    return client.post("/v1/datasets", files=files, data=fields, headers=headers)


def incoming(app: FastAPI) -> list[str]:
    return [path.name for path in (app.state.settings.data_dir / "incoming").iterdir()]


def stored(app: FastAPI) -> list[str]:
    return list(app.state.storage.list("datasets"))


def test_an_upload_is_stored_and_prepared_later(app: FastAPI, client: Client) -> None:
    """202 with Location, the object in storage, and no trace in the folder it arrived in."""
    response = upload(client, resolution="16", fit="pad")
    assert response.status_code == 202
    body = response.json()
    assert response.headers["location"] == f"/v1/datasets/{body['id']}"
    assert (body["name"], body["status"]) == ("My-cats", "preparing")
    assert body["options"] == {"resolution": 16, "fit": "pad"}
    assert body["source"] == {"kind": "upload", "filename": "My cats.zip", "size": len(archive())}
    (key,) = stored(app)
    assert app.state.storage.get_bytes(key) == archive()
    assert incoming(app) == []


def test_a_large_upload_arrives_whole(app: FastAPI, client: Client) -> None:
    """What takes many chunks is stored byte for byte."""
    content = np.random.default_rng(0).bytes(5 * 2**20 + 17)
    assert upload(client, content).status_code == 202
    (key,) = stored(app)
    assert app.state.storage.get_bytes(key) == content


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"resolution": "0"}, "#/resolution"),
        ({"resolution": "wide"}, "#/resolution"),
        ({"resolution": "9" * 30}, "#/resolution"),
        ({"fit": "squeeze"}, "#/fit"),
        ({"name": "a/b"}, "#/name"),
        ({"name": "ds_mine"}, "#/name"),
        ({"name": "x" * 101}, "#/name"),
        ({"name": "a\x00b"}, "#/name"),
        ({"name": "x" * 5000}, "#/name"),
        ({"colour": "red"}, "#/colour"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_kept(shared: FastAPI, caller: Client, fields, pointer) -> None:
    """422 that points at the form's field; no row, no object, no file."""
    response = upload(caller, **fields)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert caller.get("/v1/datasets").json()["data"] == []
    assert stored(shared) == []
    assert incoming(shared) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("application/zip", b"PK"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="fit"\r\n\r\ncrop\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\ncrop\r\n--x--\r\n"),
    ],
)
def test_a_broken_form_is_refused(shared: FastAPI, caller: Client, content_type, body) -> None:
    """What is no form, has no file or is cut off gives 422 and leaves nothing."""
    response = caller.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert stored(shared) == []
    assert incoming(shared) == []


def test_a_second_file_is_refused(app: FastAPI, client: Client) -> None:
    """One upload is one archive."""
    files = [("file", ("a.zip", archive())), ("file", ("b.zip", archive()))]
    assert client.post("/v1/datasets", files=files).status_code == 422
    assert incoming(app) == []


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_over_the_limit_is_refused(settings, declared) -> None:
    """413 by Content-Length, and by counting when it comes in chunks without one; nothing stays."""
    app = create_app(settings.model_copy(update={"upload_limit_bytes": 3 * 2**20}))
    body = HEAD + bytes(4 * 2**20) + b"\r\n--x--\r\n"
    chunks = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    with serving(app) as client:
        response = client.post("/v1/datasets", content=body if declared else chunks, headers=FORM)
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"
        assert stored(app) == []
        assert incoming(app) == []


def test_an_upload_that_breaks_off_leaves_nothing(app: FastAPI, client: Client) -> None:
    """A client that hangs up in the middle: its file goes away."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        head = b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + form + bytes(3_000_000))
        wait_until(lambda: incoming(app) != [], seconds=10)
    wait_until(lambda: incoming(app) == [], seconds=10)
    assert stored(app) == []


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + bytes(3_000_000)], ids=["nothing", "head", "some"])
@pytest.mark.parametrize("length", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_stalls_is_ended(settings: Settings, begun: bytes, length: str) -> None:
    """A client that keeps silent gets 408 and the connection is closed; nothing is left of what it sent."""
    app = create_app(settings.model_copy(update={"upload_idle_seconds": 0.3}))
    chunked = length.endswith("chunked") and begun
    sent = b"%x\r\n%b\r\n" % (len(begun), begun) if chunked else begun
    with serving(app) as client, socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.settimeout(10)
        fields = (f"{name}: {value}" for name, value in FORM.items())
        lines = ["POST /v1/datasets HTTP/1.1", "Host: localhost", length, *fields, "", ""]
        connection.sendall("\r\n".join(lines).encode() + sent)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"\r\ncontent-type: application/problem+json\r\n" in answer
        assert b'"code":"request_timeout"' in answer
        assert incoming(app) == stored(app) == []
        assert client.get("/v1/datasets").json()["data"] == []


def test_a_slow_upload_arrives(settings: Settings) -> None:
    """Only silence ends it, not the time that it takes as a whole."""
    app = create_app(settings.model_copy(update={"upload_idle_seconds": 0.4}))

    def slowly() -> Iterator[bytes]:
        for part in (HEAD, *[b"abc"] * 6, b"\r\n--x--\r\n"):
            time.sleep(0.1)
            yield part

    with serving(app) as client:
        assert client.post("/v1/datasets", content=slowly(), headers=FORM).status_code == 202
        (key,) = stored(app)
        assert app.state.storage.get_bytes(key) == b"abc" * 6


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/generations", "/v1/datasets/import"])
def test_a_small_body_that_stalls_is_ended(settings: Settings, path: str) -> None:
    """JSON is waited for no longer than an upload."""
    app = create_app(settings.model_copy(update={"upload_idle_seconds": 0.2}))
    with serving(app) as client, socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.settimeout(10)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408")


def test_patience_ends_with_the_body(settings: Settings) -> None:
    """A stream of events may be silent for longer, also when its request has a body that never comes."""
    app = create_app(settings.model_copy(update={"upload_idle_seconds": 0.2, "ping_seconds": 0.6}))
    with serving(app) as client:
        with app.state.database.writing() as session:
            job = make_job(session)
        for extra in ("", "Content-Length: 9\r\n"):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
                connection.settimeout(10)
                head = f"GET /v1/jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{extra}\r\n"
                connection.sendall(head.encode())
                received = b""
                while received.count(b": ping") < 2:
                    received += (part := connection.recv(65_536))
                    assert part
                assert received.startswith(b"HTTP/1.1 200")


def test_names_of_uploads(client: Client) -> None:
    """Made of the file's name they are numbered when taken, and the answer says so; a taken one that is asked for gives 409."""
    made = [upload(client) for _ in range(3)]
    assert [response.json()["name"] for response in made] == ["My-cats", "My-cats-2", "My-cats-3"]
    for response in made:
        assert client.get(response.headers["location"]).json()["name"] == response.json()["name"]
    assert upload(client, name="dogs").json()["name"] == "dogs"
    for taken in ("dogs", "My-cats-2"):
        refused = upload(client, name=taken)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert repr(taken) in refused.json()["detail"]
        assert refused.json()["errors"] == [{"pointer": "#/name", "in": "body", "detail": "taken"}]
    assert len(client.get("/v1/datasets").json()["data"]) == 4


def test_a_full_disk_is_told(app: FastAPI, client: Client) -> None:
    """507 when a write fails, whether it was in the middle or at the end; nothing is left of the upload."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, hard))
    try:
        responses = [upload(client, bytes(size)) for size in (9_000_000, 2_500_001)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [response.status_code for response in responses] == [507, 507]
    assert responses[0].json()["code"] == "storage_full"
    assert incoming(app) == stored(app) == []
    assert client.get("/v1/datasets").json()["data"] == []


def test_a_repeated_upload_is_one_data_set(app: FastAPI, client: Client) -> None:
    """The same key and file give the first answer again; another file with that key is refused."""
    key = {"Idempotency-Key": "upload-1"}
    first = upload(client, headers=key)
    second = upload(client, headers=key)
    assert second.json() == first.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert upload(client, b"another", headers=key).json()["code"] == "idempotency_mismatch"
    assert len(client.get("/v1/datasets").json()["data"]) == 1
    assert len(stored(app)) == 1


def test_options_are_those_of_the_preparation() -> None:
    """What the form lets through, the preparation can make."""
    from app.schemas.datasets import MAX_RESOLUTION, MIN_RESOLUTION
    from worker.data.images import FITS
    from worker.data.prepare import RESOLUTIONS

    assert range(MIN_RESOLUTION, MAX_RESOLUTION + 1) == RESOLUTIONS
    assert get_args(datasets.Fit) == FITS
    assert datasets.API_STATUS["succeeded"] == "ready"
