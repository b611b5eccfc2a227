"""Data sets from registration to deletion."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app import datasets
from app.db import Database
from app.errors import Gone, InUse, InvalidState, LeaseLost, NotFound
from app.storage import Storage
from app.tables import ENDED, Dataset
from models.config import DataSpec
from tests.factories import make_dataset, make_job, upload

PREPARED = {
    "examples": 6,
    "height": 2,
    "width": 3,
    "channels": 1,
    "classes": [{"name": "cat", "count": 4}, {"name": "dog", "count": 2}],
    "sha256": "5" * 64,
    "report": {"skipped": [], "skipped_total": 0, "duplicates": 0, "sizes": [], "conversions": {}},
}


def prepare(database: Database, storage: Storage | None = None, prepared: dict = PREPARED) -> Dataset:
    """Claim the waiting data set and finish it."""
    with database.writing() as session:
        dataset = claimed(session)
    key = datasets.prepared_key(dataset.id, dataset.fence)
    if storage is not None:
        storage.put_bytes(f"{key}/dataset.json", b"{}")
    with database.writing() as session:
        datasets.finish(session, dataset.id, dataset.fence, prepared)
        return datasets.get(session, dataset.id)


def claimed(session: Session) -> Dataset:
    """The waiting data set, claimed."""
    dataset = datasets.claim(session, "a worker")
    assert dataset is not None
    return dataset


def make_builtin(database: Database, name: str | None = None) -> Dataset:
    with database.writing() as session:
        return datasets.register_builtin(session, "digits", name=name)


def test_get(database: Database) -> None:
    """A data set is found by id and by name; what is not there is said with the way to what is."""
    dataset = make_builtin(database, "mine")
    with database.reading() as session:
        assert datasets.get(session, dataset.id).id == dataset.id
        assert datasets.get(session, "mine").id == dataset.id
        with pytest.raises(NotFound, match=r"'yours'.*GET /v1/datasets"):
            datasets.get(session, "yours")


def test_preparation(database: Database, storage: Storage) -> None:
    """A claimed data set is prepared once, becomes ready and has a shape that a config can be checked against."""
    waiting = make_builtin(database)
    with database.writing() as session, pytest.raises(InvalidState) as caught:
        datasets.ready(session, waiting.id)
    assert caught.value.state == "preparing"
    dataset = prepare(database, storage)
    assert dataset.id == waiting.id
    assert dataset.key == f"datasets/{dataset.id}/1"
    assert datasets.API_STATUS[dataset.status] == "ready"
    assert dataset.finished_at is not None
    assert datasets.spec(dataset) == DataSpec(examples=6, height=2, width=3, channels=1, classes=("cat", "dog"))
    with database.writing() as session:
        assert datasets.ready(session, "digits").id == dataset.id
        assert datasets.claim(session, "another") is None


def test_failed_preparation(database: Database) -> None:
    """A failed data set says why, to whoever looks and to whoever wants to train on it."""
    make_builtin(database)
    with database.writing() as session:
        dataset = claimed(session)
        datasets.fail(session, dataset.id, dataset.fence, "no_images", "There is no image in it.")
    with database.writing() as session:
        assert datasets.get(session, "digits").error == {"code": "no_images", "message": "There is no image in it."}
        with pytest.raises(InvalidState, match="There is no image in it") as caught:
            datasets.ready(session, "digits")
    assert caught.value.state == "failed"


def test_late_worker_is_refused(database: Database) -> None:
    """Once another run has claimed the data set, nothing that the first one writes counts."""
    make_builtin(database)
    with database.writing() as session:
        first = claimed(session)
        fence = first.fence
        datasets.release(session, first.id, fence)
    prepare(database)
    for late in (
        lambda session: datasets.renew(session, first.id, fence),
        lambda session: datasets.finish(session, first.id, fence, PREPARED),
        lambda session: datasets.fail(session, first.id, fence, "late", "Too late."),
        lambda session: datasets.crashed(session, first.id, fence, "late", "Too late."),
        lambda session: datasets.release(session, first.id, fence),
    ):
        with pytest.raises(LeaseLost), database.writing() as session:
            late(session)
    with database.reading() as session:
        assert datasets.get(session, first.id).key == datasets.prepared_key(first.id, fence + 1)


def test_crashes_are_counted(database: Database) -> None:
    """A run that dies is tried again, and after the last attempt the data set has failed with the reason."""
    make_builtin(database)
    statuses = []
    for _ in range(database.settings.max_attempts):
        with database.writing() as session:
            dataset = claimed(session)
            datasets.crashed(session, dataset.id, dataset.fence, "killed", "It ran out of memory.")
        with database.reading() as session:
            statuses.append(datasets.get(session, "digits").status)
    assert statuses == ["queued"] * (len(statuses) - 1) + ["failed"]
    with database.reading() as session:
        error = datasets.get(session, "digits").error
    assert error is not None
    assert error["code"] == "killed"
    assert "out of memory" in error["message"]


def test_delete(database: Database, storage: Storage, archive: Path) -> None:
    """Deleting frees the name, the objects and the list; the id says that it is gone."""
    dataset = upload(database, storage, archive, "cats.zip")
    prepare(database, storage)
    assert len(list(storage.list("datasets"))) == 2
    with database.writing() as session:
        prefix = datasets.delete(session, "cats")
    storage.delete_prefix(prefix)
    assert list(storage.list("datasets")) == []
    with database.writing() as session:
        with pytest.raises(Gone):
            datasets.get(session, dataset.id)
        with pytest.raises(Gone):
            datasets.delete(session, dataset.id)
        with pytest.raises(NotFound):
            datasets.get(session, "cats")
        assert datasets.list_datasets(session) == ([], None)
    assert upload(database, storage, archive, "cats.zip", name="cats").name == "cats"


def test_deleted_before_preparation(database: Database) -> None:
    """A data set that is deleted while it waits is never claimed."""
    make_builtin(database)
    with database.writing() as session:
        datasets.delete(session, "digits")
    with database.writing() as session:
        assert datasets.claim(session, "a worker") is None


def test_delete_while_preparing(database: Database) -> None:
    """A data set that a worker is preparing can be deleted; the worker is refused from then on, and nobody claims it again."""
    make_builtin(database)
    with database.writing() as session:
        dataset = claimed(session)
        datasets.delete(session, "digits")
    with pytest.raises(LeaseLost), database.writing() as session:
        datasets.renew(session, dataset.id, dataset.fence)
    with pytest.raises(LeaseLost), database.writing() as session:
        datasets.finish(session, dataset.id, dataset.fence, PREPARED)
    with database.writing() as session:
        assert datasets.claim(session, "another") is None
        assert datasets.unused_prefix(session, dataset.id, dataset.fence) == f"datasets/{dataset.id}"


@pytest.mark.parametrize("status", ["queued", "running", "paused", "succeeded", "failed", "cancelled"])
def test_delete_while_used(database: Database, status: str) -> None:
    """A data set cannot be deleted while an unfinished job uses it; a finished job keeps its link to the row."""
    with database.writing() as session:
        dataset = make_dataset(session, name="used")
        job = make_job(session, dataset, status=status)
    with database.writing() as session:
        if status not in ENDED:
            with pytest.raises(InUse, match=job.id):
                datasets.delete(session, "used")
        else:
            datasets.delete(session, "used")
            assert datasets.spec(session.get_one(Dataset, job.dataset_id)).examples == 200


def test_delete_beside_a_submission(database: Database) -> None:
    """A deletion that comes while a job is being submitted waits for it, and then finds the data set in use."""
    with database.writing() as session:
        dataset = make_dataset(session)
    held, outcome = threading.Event(), []

    def submit() -> None:
        with database.writing() as session:
            datasets.hold(session, dataset.id)
            held.set()
            time.sleep(0.2)
            make_job(session, dataset)

    def delete() -> None:
        held.wait(10)
        try:
            with database.writing() as session:
                datasets.delete(session, dataset.id)
        except InUse:
            outcome.append("in use")

    threads = [threading.Thread(target=submit), threading.Thread(target=delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcome == ["in use"]
