import json
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from app import datasets
from app.storage import Storage
from app.tables import Dataset
from tests.s3 import BUCKET, CREDENTIALS, s3_server
from tests.servers import wait_until
from worker.data import FEATURES_FILE, PREPARED_FILES
from worker.preparation import limits, prepare_next
from worker.service import Service
from worker.workspace import DatasetCache


def dataset_of(service: Service, dataset_id: str) -> Dataset:
    with service.database.reading() as session:
        return datasets.get(session, dataset_id)


def register(service: Service, path: Path) -> str:
    with (
        datasets.stored_upload(service.storage, path=path, filename=path.name) as upload,
        service.database.writing() as session,
    ):
        return datasets.register_upload(session, upload).id


def test_nothing_waits(service: Service) -> None:
    """Without a queued data set there is nothing to do."""
    assert prepare_next(service, {}) is False


def test_builtin_is_prepared(service: Service) -> None:
    """The digits that come with Ganvil become a data set whose files are stored under its key."""
    with service.database.writing() as session:
        dataset_id = datasets.register_builtin(session, "digits").id
    assert prepare_next(service, {})
    dataset = dataset_of(service, dataset_id)
    assert (dataset.status, dataset.examples, dataset.key) == ("succeeded", 1797, f"datasets/{dataset_id}/1")
    names = (FEATURES_FILE, *PREPARED_FILES)  # ten classes are enough for a classifier of them
    assert sorted(service.storage.list(dataset.key or "")) == sorted(f"{dataset.key}/{name}" for name in names)
    described = json.loads(service.storage.get_bytes(f"{dataset.key}/dataset.json"))
    assert described["sha256"] == dataset.sha256
    path = service.storage.local_path(f"{dataset.key}/examples.npy")
    assert np.load(path, mmap_mode="r").shape == (1797, dataset.height, dataset.width, 1)  # type: ignore[arg-type]
    assert list(service.runs.iterdir()) == []


def test_classifier_is_fetched_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a remote storage a data set comes with its classifier, and without one as the last release prepared it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as endpoint:
        storage = Storage(f"s3://{BUCKET}/files?endpoint={endpoint}&region=us-east-1")
        for key, names in (("with", (FEATURES_FILE, *PREPARED_FILES)), ("without", PREPARED_FILES)):
            for name in names:
                storage.put_bytes(f"{key}/{name}", name.encode())
            with DatasetCache(tmp_path, storage).files(key, key) as path:
                assert {file.name: file.read_text() for file in path.iterdir()} == {name: name for name in names}


def test_data_without_a_classifier_is_stored(service: Service, tmp_path: Path) -> None:
    """Images that no classifier can be trained on become a data set of the three files alone."""
    np.savez(tmp_path / "pictures.npz", images=np.zeros((3, 8, 8), np.uint8))
    dataset_id = register(service, tmp_path / "pictures.npz")
    assert prepare_next(service, {})
    dataset = dataset_of(service, dataset_id)
    assert (dataset.status, dataset.examples) == ("succeeded", 3)
    assert sorted(service.storage.list(dataset.key or "")) == sorted(f"{dataset.key}/{name}" for name in PREPARED_FILES)


def test_what_is_no_archive_is_refused(service: Service, tmp_path: Path) -> None:
    """An upload that cannot be used fails with a reason for its owner, and leaves nothing in the storage."""
    (tmp_path / "pictures.zip").write_bytes(b"no archive at all")
    dataset_id = register(service, tmp_path / "pictures.zip")
    assert prepare_next(service, {})
    dataset = dataset_of(service, dataset_id)
    assert dataset.status == "failed"
    assert dataset.error is not None
    assert dataset.error["code"] == "not_an_archive"
    assert list(service.storage.list(f"datasets/{dataset_id}")) == []


def test_child_is_limited(service: Service) -> None:
    """A decoder that runs away meets the limits of its process before the machine does."""
    told = limits(service.settings)
    assert told.keys() == {resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE}


def test_stop_gives_it_back(service: Service, tmp_path: Path) -> None:
    """A preparation whose worker ends is queued again and counts no attempt."""
    with service.database.writing() as session:
        dataset_id = datasets.register_builtin(session, "digits").id

    def stop() -> None:
        wait_until(lambda: dataset_of(service, dataset_id).status == "running")
        service.stopping.set()

    threading.Thread(target=stop).start()
    assert prepare_next(service, {})
    dataset = dataset_of(service, dataset_id)
    assert (dataset.status, dataset.attempt) == ("queued", 0)


def test_deletion_ends_it(service: Service) -> None:
    """A data set that is deleted while it is prepared is let go at the next renewal, and nothing of it stays stored."""
    with service.database.writing() as session:
        dataset_id = datasets.register_builtin(session, "digits").id

    def delete() -> None:
        wait_until(lambda: dataset_of(service, dataset_id).status == "running")
        service.storage.put_bytes(f"{datasets.prepared_key(dataset_id, 1)}/examples.npy", b"what the run had stored")
        with service.database.writing() as session:
            datasets.delete(session, dataset_id)

    thread = threading.Thread(target=delete)
    thread.start()
    assert prepare_next(service, {})
    thread.join()
    with service.database.reading() as session:
        row = session.get_one(Dataset, dataset_id)
        assert (row.status, row.key, row.worker) == ("failed", None, None)
        assert row.deleted_at is not None
    assert list(service.storage.list(f"datasets/{dataset_id}")) == []
    assert list(service.runs.iterdir()) == []


def test_late_run_takes_its_own_objects_away(service: Service, tmp_path: Path) -> None:
    """What a run stored that has lost its data set to a newer one goes; the upload and the newer run's objects stay."""
    (tmp_path / "cats.zip").write_bytes(b"an archive")
    dataset_id = register(service, tmp_path / "cats.zip")
    with service.database.writing() as session:
        assert datasets.claim(session, "slow") is not None
        datasets.release(session, dataset_id, 1)
        assert datasets.claim(session, "quick") is not None
        assert datasets.unused_prefix(session, dataset_id, 1) == f"datasets/{dataset_id}/1"
        prepared = {
            "sha256": "5" * 64,
            "examples": 1,
            "height": 8,
            "width": 8,
            "channels": 1,
            "classes": [],
            "report": {},
        }
        datasets.finish(session, dataset_id, 2, prepared)
        assert datasets.unused_prefix(session, dataset_id, 1) == f"datasets/{dataset_id}/1"
        assert datasets.unused_prefix(session, dataset_id, 2) is None
