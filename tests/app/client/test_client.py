"""The Python client, against a real service, and against servers that break off."""

import io
import json
import socketserver
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from app.client import APIError, Client, ConnectionFailed, JobFailed, PreparationFailed, transport
from app.client.transport import Message, parse_messages
from tests.app.client.broken import broken_server, send

BUDGET = {"examples": 1000}
EVENT = {
    "kind": "metrics",
    "examples_seen": 1,
    "data": {},
    "created_at": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def ganvil(live_service: str) -> Iterator[Client]:
    with Client(live_service) as client:
        yield client


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Forty noisy 8x8 images in two folders."""
    path = tmp_path / "noise.zip"
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for number in range(40):
            picture = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(picture, "PNG")
            file.writestr(f"{'ab'[number % 2]}/{number}.png", picture.getvalue())
    return path


def test_whole_way(ganvil: Client, archive: Path, tmp_path: Path) -> None:
    """Upload, wait, submit, follow, sample, download, delete: typed answers all the way."""
    uploaded = ganvil.upload(archive, name="noise")
    dataset = ganvil.wait_until_prepared(uploaded.id, timeout_seconds=60)
    assert (dataset.name, dataset.examples, dataset.channels) == ("noise", 40, 3)
    assert [(each.name, each.count) for each in dataset.classes or []] == [("a", 20), ("b", 20)]
    job = ganvil.submit("noise", model="noisy", budget=BUDGET, seed=3, metadata={"purpose": "test"})
    events = list(ganvil.follow(job.id))
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert {"status", "metrics", "checkpoint"} <= {event.kind for event in events}
    assert events[-1].data["status"] == "succeeded"
    finished = ganvil.wait(job.id)
    assert (finished.status, finished.metadata, finished.progress.percent) == ("succeeded", {"purpose": "test"}, 100.0)
    picture = ganvil.sample("noisy", 7, label="b")
    assert Image.open(io.BytesIO(picture)).size == (8, 8)
    assert picture == ganvil.sample("noisy:1", 7, label="b")
    assert Image.open(io.BytesIO(ganvil.grid("noisy", "0-8", columns=3))).size == (24, 24)
    assert Image.open(io.BytesIO(ganvil.timelapse(job.id))).format == "WEBP"
    path = ganvil.download("noisy", tmp_path / "noisy.safetensors")
    model = ganvil.model("noisy").model
    assert model is not None
    assert path.stat().st_size == model.versions[0].size
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    ganvil.delete_dataset("noise")
    with pytest.raises(APIError, match="noise"):
        ganvil.dataset("noise")


def test_a_job_begins_with_a_model(ganvil: Client) -> None:
    """The job that is told a model's ref says which version that was."""
    first = ganvil.wait(ganvil.submit("digits", model="first", budget={"examples": 64}).id)
    assert ganvil.cancel(ganvil.submit("digits", initial=first.id, budget=BUDGET).id).initial is not None


def test_lists_go_on_over_pages(ganvil: Client) -> None:
    """A list yields every row, newest first, however many pages it has."""
    names = [ganvil.submit("digits", model=f"page-{n}", budget=BUDGET).id for n in range(25)]
    listed = [job.id for job in ganvil.jobs(dataset="digits")]
    assert [each for each in listed if each in names] == names[::-1]
    for name in names:
        ganvil.cancel(name)
    assert {ganvil.job(name).desired for name in names} == {"cancel"}


def test_error_carries_the_problem_document(ganvil: Client) -> None:
    """An error answer is an exception with the status, the code, the detail and the offending fields."""
    with pytest.raises(APIError) as raised:
        ganvil.submit("digits", config={"batch_size": 0})
    error = raised.value
    assert (error.status, error.code) == (422, "invalid")
    assert any("batch_size" in each["pointer"] for each in error.errors)
    assert str(error) == error.problem["detail"]


def test_failed_preparation_is_an_exception(ganvil: Client, tmp_path: Path) -> None:
    """Waiting for a data set that cannot be prepared raises with the service's reason."""
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no pictures here")
    dataset = ganvil.upload(path, name="empty")
    with pytest.raises(PreparationFailed, match="image"):
        ganvil.wait_until_prepared(dataset.id, timeout_seconds=60)


def test_cancelled_job_is_an_exception(ganvil: Client) -> None:
    """Waiting for a job that was cancelled raises, with the job in the exception."""
    job = ganvil.submit("digits", budget={"examples": 10_000_000})
    ganvil.cancel(job.id)
    with pytest.raises(JobFailed, match="cancelled") as raised:
        ganvil.wait(job.id)
    assert raised.value.job.status == "cancelled"


@pytest.mark.usefixtures("impatient")
def test_lost_answer_is_asked_for_again_under_the_same_key() -> None:
    """A POST whose answer is lost is repeated with its Idempotency-Key, so the service can tell that it is the same."""
    keys: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler, count: int) -> None:
        keys.append(handler.headers["Idempotency-Key"])
        if count == 3:
            send(handler, 404, {"code": "not_found", "detail": "There is no dataset 'x'."})

    with broken_server(answer) as url, Client(url) as client, pytest.raises(APIError, match="no dataset"):
        client.submit("x")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


@pytest.mark.usefixtures("impatient")
def test_upload_is_sent_whole_again(archive: Path) -> None:
    """A repeated upload begins at the beginning of the file."""
    lengths: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, count: int) -> None:
        lengths.append(int(handler.headers["Content-Length"]))
        if count == 2:
            send(handler, 409, {"code": "conflict", "detail": "taken"})

    with broken_server(answer) as url, Client(url) as client, pytest.raises(APIError, match="taken"):
        client.upload(archive)
    assert lengths == [lengths[0]] * 2
    assert lengths[0] > archive.stat().st_size


@pytest.mark.usefixtures("impatient")
def test_busy_service_is_asked_again() -> None:
    """429 and 503 are tried again after what Retry-After says; the last answer is the error."""
    statuses: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, count: int) -> None:
        statuses.append(429 if count % 2 else 503)
        send(handler, statuses[-1], {"code": "busy", "detail": "full"}, Retry_After="1")

    with broken_server(answer) as url, Client(url) as client, pytest.raises(APIError, match="full"):
        client.sample("digits", 1)
    assert len(statuses) == transport.ATTEMPTS


@pytest.mark.usefixtures("impatient")
def test_one_whose_key_is_under_way_waits_for_the_answer(archive: Path) -> None:
    """A 409 that says Retry-After is asked again, a bounded number of times; without that header a 409 is final."""
    requests: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, count: int) -> None:
        requests.append(count)
        send(handler, 409, {"code": "conflict", "detail": "under way"}, Retry_After="1")

    with broken_server(answer) as url, Client(url) as client, pytest.raises(APIError, match="under way"):
        client.upload(archive)
    assert len(requests) == transport.ATTEMPTS


def test_the_rest_of_the_events_may_be_many_pages() -> None:
    """What a stream did not tell of a job that has ended is read to the last page."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        after = int(parse_qs(urlsplit(handler.path).query)["after"][0])
        asked.append(str(after))
        events = [EVENT | {"seq": seq} for seq in (after + 1, after + 2)]
        send(handler, 200, {"data": events, "next_cursor": str(after + 2) if after < 4 else None})

    with broken_server(answer) as url, Client(url) as client:
        assert [event.seq for event in client._events("/v1/jobs/job_1/events", 0)] == [1, 2, 3, 4, 5, 6]
    assert asked == ["0", "2", "4"]


@pytest.mark.usefixtures("impatient")
def test_absent_service_is_said_plainly() -> None:
    """When nobody answers, the exception names the address."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as taken:
        url = f"http://127.0.0.1:{taken.server_address[1]}"
    with Client(url) as client, pytest.raises(ConnectionFailed, match=url):
        client.dataset("digits")


@pytest.mark.usefixtures("impatient")
def test_broken_stream_is_taken_up_after_the_last_event(ganvil: Client, live_service: str) -> None:
    """A stream that breaks off is followed again from where it was: each event arrives once."""
    job = ganvil.submit("digits", model="broken-stream", budget=BUDGET)
    ganvil.wait(job.id)
    whole = [event.seq for event in ganvil.follow(job.id)]
    asked: list[str] = []
    forward = transport.Transport(live_service, None, timeout_seconds=10)

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if not handler.path.endswith("/events"):
            send(handler, 200, forward.request("GET", handler.path).json())
            return
        after = handler.headers["Last-Event-ID"]
        asked.append(after)
        page = forward.request("GET", handler.path, params={"after": after}).json()["data"]
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")  # so that the end is a break
        handler.end_headers()
        for event in page[:2]:
            handler.wfile.write(f"id: {event['seq']}\ndata: {json.dumps(event)}\n\n".encode())

    with broken_server(answer) as url, Client(url) as client:
        events = client.follow(job.id)
        assert [next(events).seq for _ in range(2)] == whole[:2]
        assert [event.seq for event in events] == whole[2:]
    assert asked[0] == "0"
    forward.close()


def test_event_stream_grammar() -> None:
    """Comments are skipped, data lines join, ids stay, and a message without its empty line is dropped."""
    lines = [
        ": hello",
        "id: 1",
        "event: metrics",
        "data: {",
        "data: }",
        "",
        "data:x",
        "",
        "event: ping",
        "",
        "data: cut off",
    ]
    assert list(parse_messages(lines)) == [Message("1", "metrics", "{\n}"), Message("1", "message", "x")]
