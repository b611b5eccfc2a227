"""Orphans: what no row names goes once it is old, and nothing else ever does."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from sqlalchemy.orm import Session

from app import datasets, jobs, orphans, registry
from app.db import Database
from app.storage import Item, Storage
from app.sweep import sweep
from app.tables import Dataset, Job, new_id
from tests.factories import claimed, make_dataset, make_job, make_job_in, new_checkpoint
from tests.s3 import BUCKET

HOUR, DAY = 3600.0, 86_400.0
YEARS = 3 * 365 * DAY


@pytest.fixture
def objects(any_storage_url: str) -> Storage:
    return Storage(any_storage_url)


@pytest.fixture
def dataset(any_database: Database) -> Dataset:
    """A ready data set of a database that is some years old."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        dataset.created_at -= YEARS
        return dataset


def store(objects: Storage, *keys: str, age: float = 2 * DAY) -> None:
    """Objects that were stored `age` seconds ago."""
    moment = time.time() - age
    for key in keys:
        objects.put_bytes(key, b"x")
        path = objects.local_path(key)
        if path is not None:
            os.utime(path, (moment, moment))
            continue
        bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET]
        item = bucket.keys[f"{urlsplit(objects.url).path.strip('/')}/{key}"]
        item.last_modified = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)


def upload(session: Session, **columns: object) -> str:
    """The key of an archive that a data set was made of."""
    dataset = make_dataset(session, key=None, **columns)
    key = f"datasets/{dataset.id}/upload/cats.zip"
    dataset.source = {"kind": "upload", "key": key, "filename": "cats.zip", "size": 1}
    return key


def stored(objects: Storage) -> set[str]:
    return {key for root in orphans.ROOTS for key in objects.list(root)}


def clear(database: Database, objects: Storage) -> int:
    return orphans.clear(database, objects, threading.Event())


def checkpoint_objects(job: Job, examples_seen: int = 320) -> list[str]:
    """The keys of a checkpoint's state and of its snapshot."""
    new = new_checkpoint(job, examples_seen)
    assert new.state_key is not None
    return [new.state_key, *(f"{new.snapshot_key}/{name}" for name in registry.SNAPSHOT_FILES)]


def grid_key(job: Job, examples_seen: int = 320) -> str:
    return f"jobs/{job.id}/{job.fence}/grids/{examples_seen:012d}.png"


def test_what_rows_name_stays(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """A prepared data set, a waiting upload and an ended job's checkpoints and grids stay, however old they are."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, dataset))
        event = jobs.NewEvent("grid", {"key": grid_key(job)}, examples_seen=320)
        jobs.report(session, job.id, job.fence, [event])
        jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 320))
        jobs.succeed(session, job.id, job.fence)
        archive = upload(session, status="queued")
    named = {*checkpoint_objects(job), grid_key(job), archive, f"{dataset.key}/examples.npy"}
    store(objects, *named)
    assert clear(any_database, objects) == 0
    assert stored(objects) == named


def test_what_no_row_names_goes_when_it_is_old(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """What was stored and never committed goes after `orphan_seconds`, and not before."""
    with any_database.writing() as session:
        job = make_job_in(session, "failed")
    old = [
        *checkpoint_objects(job, 640),
        grid_key(job, 640),
        f"datasets/{new_id('ds')}/upload/cats.zip",
        f"datasets/{dataset.id}/7/examples.npy",
        f"jobs/{new_id('job')}/1/grids/000000000320.png",
    ]
    young = [*checkpoint_objects(job, 960), f"datasets/{new_id('ds')}/upload/dogs.zip"]
    store(objects, *old)
    store(objects, *young, age=DAY - HOUR)
    assert clear(any_database, objects) == len(old)
    assert stored(objects) == set(young)


def test_a_published_snapshot_outlives_its_job(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """A deleted job's published snapshot stays and its training state goes; with the model the snapshot goes as well."""
    with any_database.writing() as session:
        job = make_job_in(session, "succeeded")
        jobs.delete(session, job.id)
    state, *snapshot = checkpoint_objects(job)
    store(objects, state, *snapshot)
    assert clear(any_database, objects) == 1
    assert stored(objects) == set(snapshot)
    with any_database.writing() as session:
        registry.delete(session, job.model_name)
    assert clear(any_database, objects) == len(snapshot)
    assert stored(objects) == set()


def test_a_running_claim_keeps_what_it_stored(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """What a living claim has stored waits for its commit also when that takes days; it goes when the claim is lost."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, dataset))
        preparing = make_dataset(session, status="running", key=None, fence=3, lease_until=time.time() + DAY)
        session.get_one(Job, job.id).lease_until = time.time() + DAY
    keys = [*checkpoint_objects(job), f"{datasets.prepared_key(preparing.id, 3)}/examples.npy"]
    store(objects, *keys)
    assert clear(any_database, objects) == 0
    with any_database.writing() as session:
        session.get_one(Job, job.id).lease_until = session.get_one(Dataset, preparing.id).lease_until = 0.0
        session.flush()
        sweep(session)
    assert clear(any_database, objects) == len(keys)


@pytest.mark.parametrize(
    ("columns", "stays"),
    [
        ({"status": "queued"}, True),
        ({"status": "running"}, True),
        ({"status": "succeeded"}, True),
        ({"status": "failed"}, False),
        ({"status": "failed", "deleted_at": 1.0}, False),
    ],
    ids=["queued", "running", "ready", "failed", "deleted"],
)
@pytest.mark.usefixtures("dataset")
def test_an_upload_is_kept_unless_it_failed(
    any_database: Database, objects: Storage, columns: dict[str, object], stays: bool
) -> None:
    """An archive stays with its data set, and goes when that failed, as after three lost workers, or was deleted."""
    with any_database.writing() as session:
        key = upload(session, **columns)
    store(objects, key)
    assert clear(any_database, objects) == (0 if stays else 1)
    assert objects.exists(key) is stays


def test_what_a_resumed_run_replaced_goes(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """When a later claim writes a tick again, and newer states make older ones needless, what they replaced goes."""
    made = []
    with any_database.writing() as session:
        job = make_job(session, dataset)
        for sha256 in ("a", "b"):
            claimed(session, job)
            jobs.report(session, job.id, job.fence, [jobs.NewEvent("grid", {"key": grid_key(job)}, examples_seen=320)])
            for seen in (320, 640, 960):
                jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen, sha256=sha256 * 64))
            made.append([grid_key(job), *(checkpoint_objects(job, seen) for seen in (320, 640, 960))])
            jobs.release(session, job.id, job.fence, "deploy")
    (grid, *first), (new_grid, *second) = made
    store(objects, grid, new_grid, *(key for keys in (*first, *second) for key in keys))
    clear(any_database, objects)
    snapshots = {key for _, *snapshot in second for key in snapshot}
    assert stored(objects) == {new_grid, second[-1][0], *snapshots}


class BusyStorage(Storage):
    """A storage whose listing something else goes on beside: a step of it before and a step after."""

    meanwhile: Iterator[None]

    def pages(self, prefix: str) -> Iterator[list[Item]]:
        next(self.meanwhile, None)
        for page in super().pages(prefix):
            next(self.meanwhile, None)
            yield page


def test_a_commit_after_the_listing_counts(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """An object that is listed before its row is committed, by a claim that has begun and ended meanwhile, stays."""
    with any_database.writing() as session:
        job = make_job(session, dataset)

    def train() -> Iterator[None]:
        with any_database.writing() as session:
            row = claimed(session, session.get_one(Job, job.id))
        store(objects, *checkpoint_objects(row))
        yield
        with any_database.writing() as session:
            jobs.record_checkpoint(session, row.id, row.fence, new_checkpoint(row, 320))
            jobs.succeed(session, row.id, row.fence)
        yield

    busy = BusyStorage(objects.url)
    busy.meanwhile = train()
    assert clear(any_database, busy) == 0
    assert next(busy.meanwhile, "over") == "over"
    assert len(stored(objects)) == 3


def test_many_at_once_beside_a_running_job(
    any_database: Database, objects: Storage, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that clear at once, pages of objects, take every orphan and nothing that a job commits meanwhile."""
    monkeypatch.setattr("app.storage.PAGE", 20)
    prefix = f"jobs/{new_id('job')}/1/grids"
    store(objects, *(f"{prefix}/{number:012d}.png" for number in range(110)))
    with any_database.writing() as session:
        job = make_job(session, dataset)
    committed: set[str] = set()

    def train() -> None:
        for turn in range(1, 9):
            with any_database.writing() as session:
                row = claimed(session, session.get_one(Job, job.id))
            keys = checkpoint_objects(row, 320 * turn)
            store(objects, *keys)
            with any_database.writing() as session:
                new = new_checkpoint(row, 320 * turn, kid=1.0 / turn)
                unneeded = jobs.record_checkpoint(session, job.id, row.fence, new)
                jobs.release(session, job.id, row.fence, "deploy")
            committed.update(keys)
            committed.difference_update(unneeded)

    with ThreadPoolExecutor(4) as pool:
        training = pool.submit(train)
        while not training.done():
            for clearing in [pool.submit(clear, any_database, objects) for _ in range(3)]:
                clearing.result()
        training.result()
    clear(any_database, objects)
    assert stored(objects) == committed


@pytest.mark.usefixtures("dataset")
def test_what_is_not_ours_stays(any_database: Database, objects: Storage) -> None:
    """Other things in the bucket stay, also in folders of the same names."""
    keys = {"datasets/cats/1.png", "jobs/report.pdf", "jobs/job_1/1/a", "models/a"}
    store(objects, *keys)
    assert clear(any_database, objects) == 0
    assert all(map(objects.exists, keys))


def test_what_is_older_than_the_database_stays(any_database: Database, objects: Storage) -> None:
    """A database that is new does not empty the storage of another, which a wrong URL gave it."""
    key = f"jobs/{new_id('job')}/1/grids/000000000320.png"
    store(objects, key)
    assert clear(any_database, objects) == 0
    with any_database.writing() as session:
        make_dataset(session)
    assert clear(any_database, objects) == 0
    assert objects.exists(key)


def test_a_stop_ends_it(any_database: Database, objects: Storage, dataset: Dataset) -> None:
    """Once the process is to end, nothing more is deleted."""
    store(objects, f"datasets/{dataset.id}/7/examples.npy")
    stopping = threading.Event()
    stopping.set()
    assert orphans.clear(any_database, objects, stopping) == 0
    assert len(stored(objects)) == 1
