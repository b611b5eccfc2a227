"""Workers that make batches are killed: what was stored stays, and the files come out as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest

from app import batches
from app.tables import Batch, BatchShard
from tests.chaos.harness import DEADLINE_SECONDS, Installation, wait_for
from tests.generators import publish_generator
from tests.servers import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]

SHARDS = 40


def submit(house: Installation) -> str:
    with house.database.writing() as session:
        request = batches.Request("cats", f"0-{10 * SHARDS - 1}", shard_size=10)
        batch_id = batches.submit(session, request).id
    house.bell.ring("batch")
    return batch_id


def batch_of(house: Installation, batch_id: str) -> Batch:
    with house.database.reading() as session:
        return session.get_one(Batch, batch_id)


def shards_of(house: Installation, batch_id: str) -> list[BatchShard]:
    with house.database.reading() as session:
        return [*batches.shards(session, batch_id)]


def wait_for_end(house: Installation, batch_id: str) -> None:
    wait_until(lambda: batch_of(house, batch_id).status == "succeeded", seconds=DEADLINE_SECONDS)


def wait_for_shards(house: Installation, batch_id: str, number: int) -> None:
    wait_until(lambda: len(shards_of(house, batch_id)) >= number, seconds=DEADLINE_SECONDS)


def test_worker_and_child_are_killed(house: Installation, tmp_path: Path) -> None:
    """First the child and then the worker, with kill -9: every shard is made once, and the archive is the undisturbed one."""
    publish_generator(house.database, house.storage, tmp_path, "cats", channels=3, classes=("cat", "dog"))
    worker = house.start_worker()
    undisturbed = submit(house)
    wait_for_end(house, undisturbed)
    batch_id = submit(house)
    wait_for_shards(house, batch_id, 2)
    (child,) = wait_for(lambda: house.children(batch_id))
    os.kill(child, signal.SIGKILL)
    wait_for_shards(house, batch_id, 8)
    worker.kill()
    worker.wait()
    stored = shards_of(house, batch_id)
    wait_until(lambda: not house.children(batch_id), seconds=DEADLINE_SECONDS)  # it does not outlive its worker
    house.start_worker()
    wait_for_end(house, batch_id)
    batch, shards = batch_of(house, batch_id), shards_of(house, batch_id)
    assert batch.archive == batch_of(house, undisturbed).archive
    assert len(stored) < SHARDS, "the batch is too short for what is to be done to it"
    assert [shard.key for shard in shards[: len(stored)]] == [shard.key for shard in stored]
    assert [shard.sha256 for shard in shards] == [shard.sha256 for shard in shards_of(house, undisturbed)]
    assert (
        batch.fence == 3 + 1
    )  # two claims lost: one with its child, one with its worker, whose lease ended by a fence more
