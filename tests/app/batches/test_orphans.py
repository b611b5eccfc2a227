"""Which objects of batches are orphans, and which are not."""

import time

import pytest

from app import batches
from app.db import Database
from app.storage import Storage
from app.tables import Batch
from tests.app.batches.rows import claimed, make_batch, new_shard, record, succeeded
from tests.app.test_orphans import DAY, clear, dataset, objects, store, stored

__all__ = ["dataset", "objects"]


@pytest.mark.usefixtures("dataset")
def test_what_a_batch_keeps(any_database: Database, objects: Storage) -> None:
    """The shards of a batch and a zip's directory stay until it is deleted; what a lost claim did not record goes."""
    with any_database.writing() as session:
        batch = succeeded(session, make_batch(session))
        session.get_one(Batch, batch.id).archive = {"size": 1, "sha256": "", "directory": {"key": directory_of(batch)}}
        going_on = claimed(session, make_batch(session))
        record(session, going_on, 0)
        batches.release(session, going_on.id, 1, "deploy")
        unrecorded = f"batches/{going_on.id}/1/shards/00001.tar"
        claimed(session, going_on).lease_until = time.time() + DAY
        named = [new_shard(batch, index).key for index in range(3)]
        recorded = batches.shards(session, going_on.id)[0].key
        waits = new_shard(going_on, 1).key
    store(objects, *named, directory_of(batch), recorded, waits, unrecorded)
    assert clear(any_database, objects) == 1
    assert not objects.exists(unrecorded)
    with any_database.writing() as session:
        batches.delete(session, batch.id)
        batches.fail(session, going_on.id, 2, "gone", "")
    assert clear(any_database, objects) == 6
    assert stored(objects) == set()


def directory_of(batch: Batch) -> str:
    return f"batches/{batch.id}/1/directory"
