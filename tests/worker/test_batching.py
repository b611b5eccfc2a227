"""A worker that makes batches: real children, which are killed, stopped and refused."""

import hashlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app import batches
from app.batches import archives
from app.registry import SNAPSHOT_FILES, Resolved
from app.tables import Batch, BatchShard
from tests.generators import publish_generator
from tests.live import processes
from tests.servers import wait_until
from worker import batching
from worker.batching import batch_next
from worker.service import Service

SHARDS = 30


@pytest.fixture
def model(service: Service, tmp_path: Path) -> Resolved:
    return publish_generator(service.database, service.storage, tmp_path, "cats", channels=3, classes=("cat", "dog"))


def submit(service: Service, **request: object) -> str:
    """A batch of many small shards, which a child cannot make much faster than its worker stores them."""
    asked = {"model": "cats", "seeds": f"0-{10 * SHARDS - 1}", "shard_size": 10} | request
    with service.database.writing() as session:
        return batches.submit(session, batches.Request(**asked)).id  # type: ignore[arg-type]


def batch_of(service: Service, batch_id: str) -> Batch:
    with service.database.reading() as session:
        return session.get_one(Batch, batch_id)


def shards_of(service: Service, batch_id: str) -> list[BatchShard]:
    with service.database.reading() as session:
        return [*batches.shards(session, batch_id)]


def archive_of(service: Service, batch_id: str) -> bytes:
    """Checked against what the row says of it."""
    batch, shards = batch_of(service, batch_id), shards_of(service, batch_id)
    assert batch.archive is not None, batch.error
    parts = archives.pieces(batch, shards, batch.archive["directory"])
    data = b"".join(archives.stream(service.storage, parts, 0, batch.archive["size"]))
    assert hashlib.sha256(data).hexdigest() == batch.archive["sha256"]
    for shard in shards:
        assert hashlib.sha256(service.storage.get_bytes(shard.key)).hexdigest() == shard.sha256
    return data


def child_of(service: Service, batch_id: str) -> int:
    place = f"{service.runs.resolve()}/{batch_id}."
    return min(pid for pid, (_, command) in processes().items() if place in command)


def amid(service: Service, batch_id: str, act: Callable[[], None], shards: int = 3) -> threading.Thread:
    """Does something once a few shards are recorded and the batch goes on."""

    def wait_and_act() -> None:
        wait_until(lambda: len(shards_of(service, batch_id)) >= shards, seconds=60)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_nothing_waits(service: Service) -> None:
    """Without a queued batch there is nothing to do."""
    assert batch_next(service, {}) is False


@pytest.mark.usefixtures("model")
def test_a_killed_child_is_gone_on_from(service: Service) -> None:
    """After kill -9 the next claim makes what is missing and nothing twice: the bytes of a batch that nothing happened to."""
    undisturbed, batch_id = submit(service), submit(service)
    assert batch_next(service, {})
    killing = amid(service, batch_id, lambda: os.kill(child_of(service, batch_id), signal.SIGKILL))
    assert batch_next(service, {})
    killing.join()
    killed, made = batch_of(service, batch_id), shards_of(service, batch_id)
    assert (killed.status, killed.attempt) == ("queued", 1)
    assert 3 <= len(made) < SHARDS
    assert batch_next(service, {})
    done, shards = batch_of(service, batch_id), shards_of(service, batch_id)
    assert (done.status, done.attempt, done.fence) == ("succeeded", 0, 2)
    assert [shard.key for shard in shards[: len(made)]] == [shard.key for shard in made]
    assert [shard.index for shard in shards] == list(range(SHARDS))
    assert archive_of(service, batch_id) == archive_of(service, undisturbed)
    assert done.progress["done"] == done.total == 10 * SHARDS
    assert list(service.runs.iterdir()) == []


@pytest.mark.usefixtures("model")
def test_a_zip_has_its_directory_stored(service: Service) -> None:
    """Only shards and one directory are stored; a batch whose shards are all there needs no child."""
    batch_id = submit(service, container="zip", seeds="0-19")
    with service.database.writing() as session:
        assert batches.claim(session, "another") is not None
    batch = batch_of(service, batch_id)
    whole = submit(service, container="zip", seeds="0-19")
    assert batch_next(service, {})
    with service.database.writing() as session:
        for shard in shards_of(service, whole):
            key = batches.shard_key(batch, shard.index)
            service.storage.put_bytes(key, service.storage.get_bytes(shard.key))
            parts = ("index", "samples", "size", "body", "sha256", "engine", "encoder")
            same = {part: getattr(shard, part) for part in parts}
            batches.record_shard(session, batch_id, 1, batches.NewShard(key=key, **same))
        batches.release(session, batch_id, 1, "deploy")
    assert batch_next(service, {})
    assert archive_of(service, batch_id) == archive_of(service, whole)
    assert sorted(service.storage.list(f"batches/{batch_id}")) == [
        f"batches/{batch_id}/1/shards/00000.zip",
        f"batches/{batch_id}/1/shards/00001.zip",
        f"batches/{batch_id}/2/directory",
    ]


@pytest.mark.usefixtures("model")
def test_stop_gives_it_back(service: Service) -> None:
    """A batch whose worker ends is queued again with its shards, and counts no attempt."""
    batch_id = submit(service)
    stopping = amid(service, batch_id, service.stopping.set)
    assert batch_next(service, {})
    stopping.join()
    batch = batch_of(service, batch_id)
    assert (batch.status, batch.attempt) == ("queued", 0)
    assert 3 <= len(shards_of(service, batch_id)) < SHARDS
    assert batch_next(service, {}) is False


@pytest.mark.parametrize("how", ["cancel", "delete"])
@pytest.mark.usefixtures("model")
def test_it_ends_when_its_user_wants(service: Service, how: str) -> None:
    """Cancelled or deleted amid its work, it ends soon, and nothing of it stays stored."""
    batch_id = submit(service)

    def act() -> None:
        with service.database.writing() as session:
            {"cancel": batches.cancel, "delete": batches.delete}[how](session, batch_id)

    acting = amid(service, batch_id, act)
    assert batch_next(service, {})
    acting.join()
    batch = batch_of(service, batch_id)
    assert batch.status == "cancelled"
    assert (batch.deleted_at is not None) is (how == "delete")
    assert list(service.storage.list(f"batches/{batch_id}")) == []
    assert shards_of(service, batch_id) == []


def test_files_that_are_no_longer_there(service: Service, model: Resolved) -> None:
    """A batch whose model's files are lost fails and says so."""
    batch_id = submit(service)
    service.storage.delete(f"{model.snapshot_key}/{name}" for name in SNAPSHOT_FILES)
    assert batch_next(service, {})
    batch = batch_of(service, batch_id)
    assert (batch.status, batch.error and batch.error["code"]) == ("failed", "gone")
    assert "cats:1" in str(batch.error)


def test_files_that_are_damaged(service: Service, model: Resolved) -> None:
    """They are tried as often as anything that crashes, and with the last attempt the reason is told."""
    batch_id = submit(service)
    with service.database.writing() as session:
        session.get_one(Batch, batch_id).attempt = service.settings.max_attempts - 1
    service.storage.put_bytes(f"{model.snapshot_key}/{SNAPSHOT_FILES[0]}", b"no weights")
    assert batch_next(service, {})
    batch = batch_of(service, batch_id)
    assert batch.status == "failed"
    assert "The stored files of cats:1 cannot be used" in str(batch.error)


@pytest.mark.usefixtures("model")
def test_child_is_limited(service: Service) -> None:
    """It may have most of the memory that there is to spare, and leaves no core behind."""
    assert batching._limits(service).keys() == {resource.RLIMIT_DATA, resource.RLIMIT_CORE}
