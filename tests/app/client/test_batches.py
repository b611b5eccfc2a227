"""The client's calls for batches, against a running application whose worker is this test."""

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.client import APIError, BatchFailed, Client, TimedOut
from tests.app.routes.gallery import gallery
from worker.batching import batch_next
from worker.service import Service


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, str]]:
    with gallery(tmp_path_factory.mktemp("gallery"), trainer_threads=1) as (app, client):
        yield app, str(client.base_url)


@pytest.fixture
def ganvil(served: tuple[FastAPI, str]) -> Iterator[Client]:
    with Client(served[1]) as client:
        yield client


def test_from_request_to_file(served: tuple[FastAPI, str], ganvil: Client, tmp_path: Path) -> None:
    """A batch is waited for, and its archive and a shard are saved and are what the manifest says."""
    batch = ganvil.create_batch("cats", "0-9", label="cat", truncation=0.7, form="webp", shard_size=8)
    assert (batch.class_, batch.truncation, batch.format, batch.shards) == ("cat", 0.7, "webp", 2)
    with pytest.raises(TimedOut):
        ganvil.wait_for_batch(batch.id, timeout_seconds=0)
    service = Service(served[0].state.settings)
    with closing(service.database):
        worker = threading.Thread(target=batch_next, args=(service, {}))
        worker.start()
        done = ganvil.wait_for_batch(batch.id)
        worker.join()
    manifest = ganvil.batch_manifest(batch.id)
    assert done.archive == manifest.archive
    assert done.archive is not None
    path = ganvil.download_batch(batch.id, tmp_path / "cats.tar")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == done.archive.sha256
    with tarfile.open(path) as archive, archive.extractfile("3.webp") as file:  # type: ignore[union-attr]
        assert file.read() == ganvil.sample("cats", 3, form="webp", label="cat", truncation=0.7)
    shard = ganvil.download_batch(batch.id, tmp_path / "1.tar", shard=1)
    assert hashlib.sha256(shard.read_bytes()).hexdigest() == manifest.shards[1].sha256
    assert [each.id for each in ganvil.batches(status="succeeded")] == [batch.id]
    ganvil.delete_batch(batch.id)
    with pytest.raises(APIError) as gone:
        ganvil.batch(batch.id)
    assert gone.value.status == 410


def test_a_batch_that_ends_otherwise(ganvil: Client) -> None:
    """Waiting for one that is cancelled raises, and says how it ended."""
    ids = [ganvil.create_batch("ink", "0-9", container="zip").id for _ in range(2)]
    assert [batch.id for batch in ganvil.batches(status="queued")] == [*reversed(ids)]
    for batch_id in ids:
        assert ganvil.cancel_batch(batch_id).status == "cancelled"
    with pytest.raises(BatchFailed, match="was cancelled"):
        ganvil.wait_for_batch(ids[0])
