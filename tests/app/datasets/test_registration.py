"""Registering uploads and imports: the row, the object, the name."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from app import datasets
from app.db import Database
from app.errors import Conflict, Invalid
from app.storage import Storage
from app.tables import Dataset
from tests.factories import upload


def make_builtin(database: Database, name: str | None = None) -> Dataset:
    with database.writing() as session:
        return datasets.register_builtin(session, "digits", name=name)


def test_upload_is_registered(database: Database, storage: Storage, archive: Path) -> None:
    """An upload becomes a queued row that names its object, what was sent and how to prepare it."""
    dataset = upload(database, storage, archive, "My cats.tar.gz")
    assert dataset.id.startswith("ds_")
    assert (dataset.name, dataset.status) == ("My-cats", "queued")
    assert datasets.API_STATUS[dataset.status] == "preparing"
    key = f"datasets/{dataset.id}/upload/My_cats.tar.gz"
    assert dataset.source == {"kind": "upload", "key": key, "filename": "My cats.tar.gz", "size": 10}
    assert dataset.options == {"resolution": 32, "fit": "pad"}
    assert storage.get_bytes(key) == b"an archive"


def test_taken_name_leaves_no_object(database: Database, storage: Storage, archive: Path) -> None:
    """An explicit name that is taken is refused, and so is a malformed one; neither leaves an object or a row."""
    upload(database, storage, archive, "a.zip", name="cats")
    for name, error in (("cats", Conflict), ("ds_1", Invalid), ("a/b", Invalid), ("", Invalid)):
        with pytest.raises(error) as caught:
            upload(database, storage, archive, "b.zip", name=name)
        assert caught.value.errors[0].pointer == "#/name"
    assert len(list(storage.list("datasets"))) == 1
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 1


def test_failing_commit_leaves_no_object(database: Database, storage: Storage, archive: Path) -> None:
    """When what else the transaction holds fails, the object of the upload goes away too."""

    def register_and_fail() -> None:
        with datasets.stored_upload(storage, path=archive, filename="a.zip") as stored, database.writing() as session:
            datasets.register_upload(session, stored)
            session.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(DBAPIError):
        register_and_fail()
    assert list(storage.list("datasets")) == []


def test_unregistered_upload_goes_away(storage: Storage, archive: Path) -> None:
    """An upload that nobody registers, as when another request with the same key came first, leaves no object."""
    with datasets.stored_upload(storage, path=archive, filename="a.zip") as stored:
        assert storage.exists(stored.key)
    assert list(storage.list("datasets")) == []


@pytest.mark.parametrize(
    ("filename", "name", "last"),
    [
        ("cats.zip", "cats", "cats.zip"),
        ("C:\\pictures\\My Cats.ZIP", "My-Cats", "My_Cats.ZIP"),
        ("/etc/../cats.tar.gz", "cats", "cats.tar.gz"),
        ("v1.5 final.npz", "v1.5-final", "v1.5_final.npz"),
        ("..", "data", "upload"),
        ("", "data", "upload"),
        ("Кошки.zip", "data", "zip"),
        ("ds_12.zip", "data-ds_12", "ds_12.zip"),
        ("x" * 300 + ".zip", "x" * 80, "x" * 96 + ".zip"),
    ],
)
def test_names_from_files(
    database: Database, storage: Storage, archive: Path, filename: str, name: str, last: str
) -> None:
    """Without a name a data set takes its file's, made well-formed; and any file name makes a storage key."""
    dataset = upload(database, storage, archive, filename)
    assert dataset.name == name
    assert dataset.source["key"] == f"datasets/{dataset.id}/upload/{last}"
    assert dataset.source["filename"] == filename


def test_chosen_names_are_made_unique(database: Database) -> None:
    """A name that we choose gets a number when it is taken, and the first free one at that."""
    made = [make_builtin(database) for _ in range(3)]
    assert [dataset.name for dataset in made] == ["digits", "digits-2", "digits-3"]
    with database.writing() as session:
        datasets.delete(session, "digits-2")
    assert make_builtin(database).name == "digits-2"


def test_simultaneous_registration(database: Database) -> None:
    """Many imports at once get different names, and of those that want one name exactly one gets it."""
    results: list[str] = []

    def register(name: str | None) -> None:
        try:
            results.append(make_builtin(database, name).name)
        except Conflict:
            results.append("refused")

    threads = [threading.Thread(target=register, args=(name,)) for name in ["mine", None] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["digits", "digits-2", "digits-3", "digits-4", "mine", "refused", "refused", "refused"]


def test_unknown_builtin(database: Database) -> None:
    """A built-in data set that is not there is refused with those that are."""
    with database.writing() as session, pytest.raises(Invalid, match="digits") as caught:
        datasets.register_builtin(session, "mnist")
    assert caught.value.errors[0].pointer == "#/source/name"
