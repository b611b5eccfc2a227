"""HEAD of signed addresses, which browsers, `curl -I` and download managers send: what GET says, by the same rules."""

import io
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import Client, Headers

from app import formats, jobs
from app.signing import SIGNABLE
from tests.app.routes.gallery import gallery
from tests.factories import claimed, make_dataset, make_job
from worker.batching import batch_next
from worker.service import Service

KEY = "key-of-this-test-with-32-letters"
BEARER = {"Authorization": f"Bearer {KEY}"}
STREAM = {"Accept": "text/event-stream"}
OTHER_METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
OF_EACH_ANSWER = {"date", "x-request-id", "content-length", "transfer-encoding"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery"), api_keys=(KEY,), trainer_threads=1) as running:
        yield running


@pytest.fixture
def client(running: tuple[FastAPI, Client]) -> Client:
    """Sends no key."""
    return running[1]


@pytest.fixture(scope="module")
def addresses(running: tuple[FastAPI, Client]) -> dict[str, str]:
    """A signed one of something that is there, by what can be signed."""
    app, client = running
    job, dataset, batch = a_job_with_grids(app), a_dataset(app), a_batch(app, client)
    urls = [
        "/v1/models/cats:1/samples/7.png?class=cat",
        "/v1/models/cats/grid.png?seeds=0-3",
        "/v1/models/cats:1/interpolation.webp?seeds=1,2&frames=2",
        "/v1/models/ink:1/download",
        f"/v1/datasets/{dataset}/preview.png?n=4",
        f"/v1/jobs/{job}/events?type=grid",
        f"/v1/jobs/{job}/grids/latest.png",
        f"/v1/jobs/{job}/timelapse.webp",
        f"/v1/batches/{batch}/archive",
        f"/v1/batches/{batch}/shards/0",
    ]
    signed = client.post("/v1/signed-urls", json={"urls": urls}, headers=BEARER).json()["data"]
    return dict(zip(SIGNABLE, [found["url"] for found in signed], strict=True))


def a_job_with_grids(app: FastAPI) -> str:
    """The id of one that runs."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session))
        keys = {seen: f"jobs/{job.id}/1/grids/{seen:012d}.png" for seen in (64, 128)}
        jobs.report(
            session, job.id, job.fence, [jobs.NewEvent("grid", {"key": key}, seen, 1.0) for seen, key in keys.items()]
        )
    for seen, key in keys.items():
        app.state.storage.put_bytes(key, formats.encode(np.full((16, 16, 1), seen, np.uint8), "png"))
    return job.id


def a_dataset(app: FastAPI) -> str:
    """The id of one that is ready."""
    with app.state.database.writing() as session:
        row = make_dataset(session, name="shades", examples=20)
    buffer = io.BytesIO()
    np.save(buffer, np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8, 1))
    app.state.storage.put_bytes(f"{row.key}/examples.npy", buffer.getvalue())
    return row.id


def a_batch(app: FastAPI, client: Client) -> str:
    """The id of one that a real worker made."""
    created = client.post("/v1/batches", json={"model": "ink", "seeds": "0-3"}, headers=BEARER).json()
    service = Service(app.state.settings)
    with closing(service.database):
        assert batch_next(service, {})
    batch_id: str = created["id"]
    return batch_id


def lasting(headers: Headers) -> dict[str, str]:
    """What is no matter of this one answer; what is left of a time may be a second less."""
    found = {name: value for name, value in headers.items() if name not in OF_EACH_ANSWER}
    return found | {"cache-control": re.sub("max-age=[0-9]+", "max-age", found["cache-control"])}


@pytest.mark.parametrize("template", SIGNABLE)
def test_head_says_what_get_says(client: Client, addresses: dict[str, str], template: str) -> None:
    """Status and headers, without the body; a length where it is known is the file's; 304 for whoever has it."""
    url = addresses[template]
    head, got = client.head(url), client.get(url)
    assert (head.status_code, got.status_code) == (200, 200)
    assert head.content == b"" != got.content
    assert lasting(head.headers) == lasting(got.headers)
    assert head.headers["access-control-allow-origin"] == "*"
    if "content-length" in head.headers:
        assert int(head.headers["content-length"]) == len(got.content)
    if "etag" in got.headers:
        assert client.head(url, headers={"If-None-Match": got.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("template", SIGNABLE)
def test_a_tampered_or_expired_one_is_refused(
    client: Client, addresses: dict[str, str], template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 for HEAD as for GET; an expired one is so only at its time."""
    url = addresses[template]
    tampered = [f"{url}x", f"{url}&more=1", re.sub("expires=", "expires=1", url), re.sub("/v1/[a-z]+/", r"\g<0>x", url)]
    for ask in (client.head, client.get):
        assert [ask(other).status_code for other in tampered] == [403] * len(tampered)
    later = datetime.now(UTC).timestamp() + 3601
    monkeypatch.setattr("app.http.auth.time.time", lambda: later)
    assert [ask(url).status_code for ask in (client.head, client.get)] == [403, 403]
    assert client.get(url).json()["code"] == "address_expired"


@pytest.mark.parametrize("template", SIGNABLE)
def test_no_other_method_is_let_in(client: Client, addresses: dict[str, str], template: str) -> None:
    """403, also beside a header that asks for another method than the one that is sent."""
    url = addresses[template]
    answers = [client.request(method, url) for method in OTHER_METHODS]
    answers += [client.request("POST", url, headers={"X-HTTP-Method-Override": "HEAD"})]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "wrong_signature")] * len(
        answers
    )


def test_head_of_events_follows_nothing(client: Client, addresses: dict[str, str]) -> None:
    """The job runs on, and GET would not end; HEAD has the stream's headers at once."""
    url = addresses["/v1/jobs/{job}/events"]
    head = client.head(url, headers=STREAM)
    with client.stream("GET", url, headers=STREAM) as stream:
        assert lasting(head.headers) == lasting(stream.headers)
    assert head.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in head.headers


def test_head_makes_no_film(running: tuple[FastAPI, Client], addresses: dict[str, str]) -> None:
    """It takes seconds, and its ETag is known before."""
    app, client = running
    url = addresses["/v1/jobs/{job}/timelapse.webp"]
    before = dict(app.state.films._kept)
    assert client.head(f"{url.partition('?')[0]}?fps=7", headers=BEARER).status_code == 200
    assert app.state.films._kept == before


def test_head_and_get_are_refused_alike(client: Client) -> None:
    """What is not there, and what is asked for in a wrong way."""
    for path in ("/v1/jobs/job_0/events", "/v1/jobs/job_0/grids/latest.png", "/v1/datasets/none/preview.png"):
        assert [ask(path, headers=BEARER).status_code for ask in (client.head, client.get)] == [404, 404]
    for path in (
        "/v1/datasets/shades/preview.png?n=0",
        "/v1/jobs/latest/timelapse.webp?fps=0",
        "/v1/jobs/latest/events?x=1",
    ):
        assert [ask(path, headers=BEARER).status_code for ask in (client.head, client.get)] == [422, 422]
