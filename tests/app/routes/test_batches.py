"""/v1/batches over HTTP: accepted, made by a real worker, downloaded whole and in parts."""

import hashlib
import io
import logging
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import Client, RemoteProtocolError, Response
from structlog.testing import capture_logs

from app import batches
from app.client import Client as Ganvil
from app.schemas.batches import BatchManifest
from tests.app.routes.gallery import gallery
from worker.batching import batch_next
from worker.service import Service

URL = "/v1/batches"
LIMIT = 500


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery"), batch_limit=LIMIT, trainer_threads=1) as found:
        yield found


@pytest.fixture
def client(served: tuple[FastAPI, Client]) -> Client:
    return served[1]


@pytest.fixture(scope="module")
def work(served: tuple[FastAPI, Client]) -> Callable[[], None]:
    """Makes every batch that waits."""
    settings = served[0].state.settings

    def make_all() -> None:
        service = Service(settings)
        with closing(service.database):
            while batch_next(service, {}):
                pass

    return make_all


@pytest.fixture(scope="module")
def made(served: tuple[FastAPI, Client], work: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """A batch in each of two containers, by container."""
    _, client = served
    for container in ("tar", "zip"):
        create(client, container=container)
    work()
    listed = client.get(URL, params={"status": "succeeded"}).json()["data"]
    return {batch["container"]: batch for batch in listed}


def create(client: Client, **body: Any) -> Response:
    return client.post(URL, json={"model": "cats", "seeds": "3-12,40", "class": "Käfer", "shard_size": 4} | body)


def names_in(data: bytes, container: str) -> list[str]:
    if container == "zip":
        return zipfile.ZipFile(io.BytesIO(data)).namelist()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_a_batch_is_accepted(client: Client) -> None:
    """202 at once, without a worker and without Redis, with the address of what will be; it is listed and can be looked at."""
    answer = create(client, truncation=0.5)
    body = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{URL}/{body['id']}")
    asked = {"model": "cats:1", "seeds": "3-12,40", "class": "Käfer", "truncation": 0.5, "format": "png"}
    asked |= {"container": "tar", "shard_size": 4, "shards": 3, "status": "queued", "archive": None, "expires_at": None}
    assert {name: body[name] for name in asked} == asked
    assert body["progress"] == {
        "done": 0,
        "total": 11,
        "percent": 0.0,
        "samples_per_second": None,
        "eta_seconds": None,
    }
    assert client.get(answer.headers["location"]).json() == body
    assert client.get(f"{URL}/latest").json() == body
    assert client.get(URL, params={"limit": 1}).json()["data"] == [body]
    refused = client.get(f"{URL}/{body['id']}/archive")
    assert (refused.status_code, refused.json()["code"], refused.json()["state"]) == (409, "invalid_state", "queued")
    assert client.get(f"{URL}/{body['id']}/shards/0").status_code == 409
    assert client.get(f"{URL}/{body['id']}/manifest").json()["shards"] == []
    cancelled = client.post(f"{URL}/{body['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")


def test_seeds_may_be_a_list(client: Client) -> None:
    """In its order; what follows on one another is told as a range."""
    answer = create(client, seeds=[40, 3, 4, 5, 3])
    batch = answer.json()
    assert (answer.status_code, batch["seeds"], batch["progress"]["total"]) == (202, "40,3-5,3", 5)
    with Ganvil(str(client.base_url)) as ganvil:
        by_client = ganvil.create_batch("cats", range(8))
        assert (by_client.seeds, by_client.progress.total) == ("0-7", 8)
        for made in (batch["id"], by_client.id):
            ganvil.delete_batch(made)


def test_a_repeated_request_is_one_batch(client: Client) -> None:
    """The same Idempotency-Key gives the same batch, and with another body 422."""
    key = {"Idempotency-Key": "once"}
    body = {"model": "ink", "seeds": "1"}
    first, again = (client.post(URL, json=body, headers=key) for _ in range(2))
    assert (again.status_code, again.json(), again.headers["location"]) == (
        202,
        first.json(),
        first.headers["location"],
    )
    assert client.post(URL, json=body | {"seeds": "2"}, headers=key).status_code == 422
    client.delete(first.headers["location"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"seeds": "-5"}, "#/seeds"),
        ({"seeds": f"0-{2**63}"}, "#/seeds"),
        ({"seeds": "9-3"}, "#/seeds"),
        ({"seeds": f"0-{LIMIT}"}, "#/seeds"),
        ({"seeds": []}, "#/seeds"),
        ({"seeds": [1, -2]}, "#/seeds"),
        ({"seeds": [1, "2"]}, "#/seeds"),
        ({"seeds": list(range(LIMIT + 1))}, "#/seeds"),
        ({"class": "cow"}, "#/class"),
        ({"truncation": 0}, "#/truncation"),
        ({"truncation": 1.01}, "#/truncation"),
        ({"format": "bmp"}, "#/format"),
        ({"container": "npz", "format": "png"}, "#/format"),
        ({"container": "rar"}, "#/container"),
        ({"shard_size": 0}, "#/shard_size"),
        ({"n": 3}, "#/n"),
    ],
)
def test_bad_requests_name_the_field(client: Client, body: dict[str, Any], pointer: str) -> None:
    """422 with a pointer, and nothing is queued."""
    before = client.get(URL).json()["data"]
    answer = create(client, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert client.get(URL).json()["data"] == before


def test_a_container_that_cannot_be_written_here(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow, parquet is refused with what to install; the others are as ever."""
    monkeypatch.setattr("app.batches.containers.find_spec", {"pyarrow": None}.get)
    answer = create(client, container="parquet")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/container")
    assert "pip install pyarrow" in answer.json()["detail"]


@pytest.mark.parametrize(("model", "status"), [("dogs", 404), ("cats:9", 404), ("cats@prod", 404), ("c:a:t", 404)])
def test_models_that_are_not_there(client: Client, model: str, status: int) -> None:
    """As for single samples."""
    assert create(client, model=model).status_code == status


@pytest.mark.parametrize("verb", ["", "/manifest", "/archive", "/shards/0"])
def test_batches_that_are_not_there(client: Client, verb: str) -> None:
    """404 for one that never was, 410 for one that was deleted."""
    assert client.get(f"{URL}/batch_000000000000000000000000{verb}").status_code == 404
    address = create(client).headers["location"]
    assert client.delete(address).status_code == 204
    gone = client.get(f"{address}{verb}")
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert client.delete(address).status_code == 410


def test_an_expired_batch_is_gone(served: tuple[FastAPI, Client], client: Client) -> None:
    """410, which says so."""
    address = create(client).headers["location"]
    client.post(f"{address}/cancel")
    with served[0].state.database.writing() as session:
        batches.get(session, address.rpartition("/")[2]).expires_at = 1.0
        session.flush()
        batches.sweep(session)
    gone = client.get(f"{address}/archive")
    assert (gone.status_code, "has expired" in gone.json()["detail"]) == (410, True)


def test_the_files_are_those_of_single_samples(client: Client, made: dict[str, dict[str, Any]]) -> None:
    """Each sample in the archive is, byte for byte, what its own address gives."""
    content = {name: client.get(f"{URL}/{batch['id']}/archive").content for name, batch in made.items()}
    with (
        tarfile.open(fileobj=io.BytesIO(content["tar"])) as tar,
        zipfile.ZipFile(io.BytesIO(content["zip"])) as archive,
    ):
        for seed in (*range(3, 13), 40):
            alone = client.get(f"/v1/models/cats:1/samples/{seed}.png", params={"class": "Käfer"}).content
            assert tar.extractfile(f"{seed}.png").read() == alone  # type: ignore[union-attr]
            assert archive.read(f"{seed}.png") == alone


@pytest.mark.parametrize("container", ["tar", "zip"])
def test_downloads(client: Client, made: dict[str, dict[str, Any]], container: str) -> None:
    """HEAD, ranges, If-Range and If-None-Match, by a strong ETag that is the sha256."""
    batch = made[container]
    url = f"{URL}/{batch['id']}/archive"
    whole = client.get(url)
    size, tag = batch["archive"]["size"], f'"{batch["archive"]["sha256"]}"'
    assert (whole.status_code, len(whole.content), whole.headers["etag"]) == (200, size, tag)
    assert hashlib.sha256(whole.content).hexdigest() == batch["archive"]["sha256"]
    assert whole.headers["content-disposition"] == f'attachment; filename="{batch["id"]}.{container}"'
    head = client.head(url)
    assert (head.content, head.headers["content-length"], head.headers["etag"]) == (b"", str(size), tag)
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(url, headers=[("If-None-Match", '"other"'), ("If-None-Match", tag)]).status_code == 304
    for asked in ("bytes=0-9", f"bytes={size}-"):
        head = client.head(url, headers={"Range": asked})
        assert (head.status_code, head.headers["content-length"]) == (200, str(size))
        assert "content-range" not in head.headers
    for start in range(0, size, size // 7):
        part = client.get(url, headers={"Range": f"bytes={start}-{start + 2000}", "If-Range": tag})
        assert (part.status_code, part.content) == (206, whole.content[start : start + 2001])
        assert part.headers["content-range"] == f"bytes {start}-{min(start + 2000, size - 1)}/{size}"
    assert client.get(url, headers={"Range": "bytes=-100"}).content == whole.content[-100:]
    beyond = client.get(url, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'}).status_code == 200


@pytest.mark.parametrize("container", ["tar", "zip"])
def test_shards_and_their_manifest(client: Client, made: dict[str, dict[str, Any]], container: str) -> None:
    """Each shard is a whole file, and the manifest has its size, sha256 and seeds, and what it was made by."""
    url = f"{URL}/{made[container]['id']}"
    manifest = BatchManifest.model_validate(client.get(f"{url}/manifest").json())
    assert [(shard.index, shard.samples, shard.seeds) for shard in manifest.shards] == [
        (0, 4, "3-6"),
        (1, 4, "7-10"),
        (2, 3, "11-12,40"),
    ]
    assert (manifest.class_, manifest.dataset_sha256 or "d" * 64, manifest.model) == ("Käfer", "d" * 64, "cats:1")
    assert (manifest.engine, manifest.shape) == (manifest.shards[0].engine, [8, 8, 3])
    assert manifest.encoder is not None
    for shard in manifest.shards:
        answer = client.get(f"{url}/shards/{shard.index}")
        assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (shard.size, shard.sha256)
        assert answer.headers["etag"] == f'"{shard.sha256}"'
        assert sum(name.endswith(".png") for name in names_in(answer.content, container)) == shard.samples
    assert client.get(f"{url}/shards/3").status_code == 404
    assert client.get(f"{url}/shards/-1").status_code == 422
    assert client.post(f"{url}/cancel").status_code == 409


def test_a_version_in_use_stays(client: Client) -> None:
    """409 names the batch that needs it; once that has ended the version can go."""
    address = create(client, model="glass", **{"class": None}).headers["location"]
    refused = client.delete("/v1/models/glass:1")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert address.rpartition("/")[2] in refused.json()["detail"]
    client.post(f"{address}/cancel")
    assert client.delete("/v1/models/glass:1").status_code == 204
    assert create(client, model="glass:1", **{"class": None}).status_code == 410


def test_deletion_takes_the_files_along(
    served: tuple[FastAPI, Client], client: Client, work: Callable[[], None], tmp_path: Path
) -> None:
    """Nothing of a deleted batch stays in the storage."""
    batch_id = create(client, model="ink", **{"class": None}).json()["id"]
    work()
    storage = served[0].state.storage
    assert len(list(storage.list(f"batches/{batch_id}"))) == 3
    assert client.delete(f"{URL}/{batch_id}").status_code == 204
    assert list(storage.list(f"batches/{batch_id}")) == []


def test_a_download_of_what_is_deleted_meanwhile_breaks_off(
    served: tuple[FastAPI, Client], client: Client, work: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees that it is not whole, and the log has a line of it, without an error or a traceback."""
    batch_id = create(client, model="ink", container="npz", **{"class": None}).json()["id"]
    work()
    storage = served[0].state.storage
    storage.delete([max(storage.list(f"batches/{batch_id}"))])
    with caplog.at_level(logging.WARNING), capture_logs() as lines:
        with pytest.raises(RemoteProtocolError, match="without sending complete"):
            client.get(f"{URL}/{batch_id}/archive")
        assert client.get(URL).status_code == 200
    assert [(line["event"], line["log_level"]) for line in lines if line["log_level"] != "info"] == [
        ("download broken off", "warning")
    ]
    assert not caplog.records
