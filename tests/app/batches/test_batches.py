"""The life of a batch, on each kind of database."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import batches, jobs, registry
from app.batches import requests
from app.db import Database, clock
from app.errors import Gone, InUse, Invalid, InvalidState, LeaseLost, NotFound
from app.sweep import sweep
from app.tables import Batch, BatchShard
from tests.app.batches.rows import INFO, claimed, make_batch, make_version, new_shard, record, succeeded
from tests.factories import make_checkpoint, make_job_in


def made(session: Session, batch: Batch) -> list[int]:
    """The shards that there are rows of."""
    return [shard.index for shard in batches.shards(session, batch.id)]


def test_a_batch_is_what_its_reference_meant(any_database: Database) -> None:
    """The version is fixed when the batch is accepted, whatever is published afterwards."""
    with any_database.writing() as session:
        batch = make_batch(session, seeds=" 0-3, 7,9-9 ", class_="dog", truncation=0.5)
        make_version(session, version=2)
        assert (batch.model, batch.sha256, batch.total, batch.seeds) == ("cats:1", "a" * 64, 6, "0-3,7,9")
        assert batch.options == {
            "class": 1,
            "truncation": 0.5,
            "format": "png",
            "container": "tar",
            "shard_size": 4,
        }
        assert (batch.status, batches.shard_count(batch)) == ("queued", 2)


def test_a_format_has_one_name(database: Database) -> None:
    """jpg is jpeg."""
    with database.writing() as session:
        assert [make_batch(session, format=name).options["format"] for name in ("jpg", "jpeg")] == ["jpeg", "jpeg"]


@pytest.mark.parametrize(
    ("request_", "pointer", "says"),
    [
        ({"seeds": "5-2"}, "#/seeds", "reversed"),
        ({"seeds": "-1"}, "#/seeds", "not a seed"),
        ({"seeds": ""}, "#/seeds", "No seed is given"),
        ({"seeds": str(2**63)}, "#/seeds", "is more"),
        ({"seeds": f"0-{2**63 - 1}"}, "#/seeds", "one batch has 1000000 at most: make several batches"),
        ({"seeds": "0-499999,0-500000"}, "#/seeds", "1000001 samples"),
        ({"seeds": list(range(0, 40_000, 2))}, "#/seeds", "114444 characters as text"),
        ({"class_": "cow"}, "#/class", "cat, dog"),
        ({"class_": 2}, "#/class", "cat, dog"),
        ({"truncation": 0}, "#/truncation", "more than 0"),
        ({"truncation": 1.5}, "#/truncation", "at most 1"),
        ({"format": "bmp"}, "#/format", "png"),
        ({"format": "png", "container": "npz"}, "#/format", "leave the format out"),
        ({"container": "rar"}, "#/container", "tar"),
        ({"seeds": "0-99999", "shard_size": 9}, "#/shard_size", "at least 10"),
        ({"shard_size": 2**24 + 1}, "#/shard_size", "at most 16777216"),
    ],
)
def test_what_cannot_be_made_is_refused(database: Database, request_: dict, pointer: str, says: str) -> None:
    """Before anything is made, with the field and what to do."""
    with database.writing() as session, pytest.raises(Invalid, match=says) as caught:
        make_batch(session, **request_)
    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("side", "total", "size"), [(32, 100_000, 2048), (64, 1000, 512), (256, 1000, 64), (256, 1_000_000, 100)]
)
def test_shards_are_some_seconds_of_work(side: int, total: int, size: int) -> None:
    """By default the larger the pictures the fewer to a shard, and never more than ten thousand shards."""
    info = INFO | {"height": side, "width": side, "channels": 3}
    request = batches.Request("cats", f"0-{total - 1}")
    assert requests.check(request, info, limit=10**6).options["shard_size"] == size


def test_models_that_are_not_there(any_database: Database) -> None:
    """Unknown, deleted and still without a snapshot: as for single samples."""
    with any_database.writing() as session:
        make_version(session)
        registry.delete(session, "cats:1")
        job = make_job_in(session, "queued")
        for model, error in (("dogs", NotFound), ("cats:1", Gone), (job.id, InvalidState)):
            with pytest.raises(error):
                make_batch(session, model=model)


def test_a_shard_counts_once_it_is_recorded(any_database: Database) -> None:
    """Shards are recorded in order and once; progress and attempts follow; another claim goes on after the last."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        batch.attempt = 2
        record(session, batch, 0)
        assert (batch.attempt, batch.progress) == (0, {"done": 4, "samples_per_second": 100.0, "eta_seconds": 0.1})
        record(session, batch, 0)  # as when the answer to the commit was lost
        with pytest.raises(ValueError, match="not the next"):
            record(session, batch, 2)
        batches.release(session, batch.id, batch.fence, "deploy")
        again = claimed(session, batch)
        assert made(session, again) == [0]
        with pytest.raises(ValueError, match="not the next"):
            record(session, again, 0)
        record(session, again, 1, 2)
        assert again.progress["done"] == 10
        assert [shard.samples for shard in batches.shards(session, batch.id)] == [4, 4, 2]


def test_a_lost_claim_writes_nothing(any_database: Database) -> None:
    """Once another claim has the batch, what the former one reports is refused."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        late = new_shard(batch, 0)
        batches.release(session, batch.id, 1, "deploy")
        claimed(session, batch)
        with pytest.raises(LeaseLost):
            batches.record_shard(session, batch.id, 1, late)
        with pytest.raises(LeaseLost):
            batches.succeed(session, batch.id, 1, size=1, sha256="", directory=None)
        assert made(session, batch) == []


def test_cancelled_while_it_waits(any_database: Database) -> None:
    """At once, also with shards from an earlier claim, and any number of times; not once it has succeeded."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        record(session, batch, 0)
        batches.release(session, batch.id, 1, "deploy")
        for _ in range(2):
            assert batches.cancel(session, batch.id).status == "cancelled"
        assert (made(session, batch), batch.expires_at is None) == ([], False)
        assert batches.claim(session, "worker") is None
        done = succeeded(session, make_batch(session))
        with pytest.raises(InvalidState):
            batches.cancel(session, done.id)


def test_cancelled_while_it_runs(any_database: Database) -> None:
    """The worker is told at its next renewal, and by its release the batch ends; so does it when the worker is lost."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        assert batches.renew(session, batch.id, 1) is None
        assert batches.cancel(session, batch.id).status == "running"
        assert batches.renew(session, batch.id, 1) == "cancel"
        batches.release(session, batch.id, 1, "cancel")
        assert batch.status == "cancelled"
        lost = claimed(session, make_batch(session))
        batches.cancel(session, lost.id)
        lost.lease_until = 0.0
        session.flush()
        assert sweep(session).unneeded == [f"batches/{lost.id}"]
        assert lost.status == "cancelled"


def test_turns(any_database: Database) -> None:
    """A batch that had its time slice gives way to one that waits, and goes behind it."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        batch.claimed_at = 0.0
        session.flush()
        assert batches.renew(session, batch.id, 1) is None
        other = make_batch(session)
        assert batches.renew(session, batch.id, 1) == "yield"
        batches.release(session, batch.id, 1, "yield")
        assert claimed(session, other) is other


def test_three_lost_workers_fail_a_batch(any_database: Database) -> None:
    """Without a shard in between; each time before it waits again."""
    with any_database.writing() as session:
        batch = make_batch(session)
        for attempt in range(1, 4):
            claimed(session, batch)
            if attempt == 1:
                batches.crashed(session, batch.id, batch.fence, "crashed", "It fell over.")
            else:
                batch.lease_until = 0.0
                session.flush()
                sweep(session)
            assert batch.attempt == attempt
            assert batch.status == ("failed" if attempt == 3 else "queued")
        assert batch.error is not None
        assert batch.error["code"] == "worker_lost"
        assert "3 runs in a row" in batch.error["message"]


def test_expiry(any_database: Database) -> None:
    """Some days after it ended a batch is Gone, its shards' rows too, and the sweep names what to delete, once."""
    with any_database.writing() as session:
        batch = succeeded(session, make_batch(session))
        assert batch.expires_at == pytest.approx(clock(session) + 604_800, abs=60)
        assert sweep(session).unneeded == []
        batch.expires_at = clock(session) - 1
        session.flush()
        assert sweep(session).unneeded == [f"batches/{batch.id}"]
        assert sweep(session).unneeded == []
        assert session.scalars(select(BatchShard)).all() == []
        with pytest.raises(Gone, match="has expired"):
            batches.get(session, batch.id)
        assert batches.list_batches(session) == ([], None)


@pytest.mark.parametrize("status", ["queued", "running", "succeeded"])
def test_deletion(any_database: Database, status: str) -> None:
    """Whatever a batch is doing: it is Gone, its claim is refused from then on, and nobody claims it again."""
    with any_database.writing() as session:
        batch = make_batch(session)
        if status != "queued":
            batch = {"running": claimed, "succeeded": succeeded}[status](session, batch)
        assert batches.delete(session, batch.id) == f"batches/{batch.id}"
        with pytest.raises(Gone, match="was deleted"):
            batches.get(session, batch.id)
        with pytest.raises(Gone):
            batches.delete(session, batch.id)
        with pytest.raises(LeaseLost):
            batches.renew(session, batch.id, 1)
        assert batches.claim(session, "worker") is None
        assert made(session, batch) == []


def test_a_version_that_a_batch_needs_cannot_be_deleted(any_database: Database) -> None:
    """Until the batch has ended, and then it can."""
    with any_database.writing() as session:
        batch = make_batch(session)
        for ref in ("cats:1", "cats"):
            with pytest.raises(InUse, match=batch.id):
                registry.delete(session, ref)
        batches.cancel(session, batch.id)
        registry.delete(session, "cats")


def test_a_job_whose_checkpoint_a_batch_needs_cannot_be_deleted(any_database: Database) -> None:
    """A batch may be made from a checkpoint, or from a job's newest, and holds the job meanwhile."""
    with any_database.writing() as session:
        job = make_job_in(session, "failed")
        checkpoint = make_checkpoint(session, job)
        batch = make_batch(session, model=job.id)
        assert batch.model == checkpoint.id
        with pytest.raises(InUse, match=batch.id):
            jobs.delete(session, job.id)
        batches.delete(session, batch.id)
        jobs.delete(session, job.id)


def test_shards_that_are_not_there(any_database: Database) -> None:
    """One that is not made yet is refused with the state, one that will never be is not found."""
    with any_database.writing() as session:
        batch = claimed(session, make_batch(session))
        record(session, batch, 0)
        assert batches.shard(session, batch, 0).index == 0
        with pytest.raises(InvalidState, match="not made yet"):
            batches.shard(session, batch, 1)
        with pytest.raises(NotFound, match="0 to 2"):
            batches.shard(session, batch, 3)
