"""Aliases and deletion of models."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from app import registry
from app.db import Database
from app.errors import Gone, InUse, Invalid, NotFound
from app.tables import Checkpoint, Job
from tests.app.registry.versions import delete, publish, put_alias, resolve


def test_aliases(database: Database, checkpoint: Checkpoint) -> None:
    """An alias is made, moved and removed; it points at living versions only."""
    publish(database, checkpoint)
    publish(database, checkpoint)
    for version in (1, 2, 1):
        with database.writing() as session:
            registry.put_alias(session, "numbers", "prod", version)
        assert resolve(database, "numbers@prod").label == f"numbers:{version}"
    with database.writing() as session:
        assert registry.get_model(session, "numbers").aliases == {"prod": 1}
        for name, version in (("numbers", 3), ("letters", 1)):
            with pytest.raises(NotFound):
                registry.put_alias(session, name, "prod", version)
        for alias in ("latest", "a@b", "", "job_1"):
            with pytest.raises(Invalid):
                registry.put_alias(session, "numbers", alias, 1)
    with database.writing() as session:
        registry.delete_alias(session, "numbers", "prod")
    with database.writing() as session, pytest.raises(NotFound):
        registry.delete_alias(session, "numbers", "prod")
    with pytest.raises(NotFound):
        resolve(database, "numbers@prod")


def test_delete_a_version(database: Database, checkpoint: Checkpoint) -> None:
    """A deleted version is gone for ever, the bare name means the newest that is left, and its number is never given again."""
    for _ in range(3):
        publish(database, checkpoint)
    delete(database, "numbers:3")
    with pytest.raises(Gone):
        resolve(database, "numbers:3")
    with pytest.raises(Gone):
        delete(database, "numbers:3")
    assert resolve(database, "numbers").label == "numbers:2"
    assert publish(database, checkpoint).version == 4


def test_delete_a_model(database: Database, checkpoint: Checkpoint) -> None:
    """A bare name deletes every version, and what is published under it later goes on counting."""
    for _ in range(2):
        publish(database, checkpoint)
    delete(database, "numbers")
    for ref in ("numbers", "numbers:1", "numbers:2"):
        with pytest.raises(Gone):
            resolve(database, ref)
    with database.reading() as session:
        assert registry.list_models(session) == ([], None)
    assert publish(database, checkpoint).version == 3


def test_delete_what_an_alias_needs(database: Database, checkpoint: Checkpoint) -> None:
    """A version that an alias points at cannot be deleted, alone or with its model."""
    publish(database, checkpoint)
    publish(database, checkpoint)
    with database.writing() as session:
        registry.put_alias(session, "numbers", "prod", 1)
    for ref in ("numbers:1", "numbers"):
        with pytest.raises(InUse, match="numbers@prod"):
            delete(database, ref)
    delete(database, "numbers:2")
    assert resolve(database, "numbers").label == "numbers:1"


def test_delete_takes_no_other_reference(database: Database, job: Job, checkpoint: Checkpoint) -> None:
    """An alias, a checkpoint and a job are not deleted as a model."""
    publish(database, checkpoint)
    with database.writing() as session:
        registry.put_alias(session, "numbers", "prod", 1)
    for ref in ("numbers@prod", checkpoint.id, job.id):
        with pytest.raises(Invalid, match="can be deleted"):
            delete(database, ref)
    with pytest.raises(NotFound):
        delete(database, "letters")


def test_delete_frees_objects_last(database: Database, checkpoint: Checkpoint) -> None:
    """A snapshot's objects go with the last of its versions, and not before its checkpoint's job is gone."""
    names = ("generator.safetensors", "model.json", "generator.onnx")
    objects = [f"{checkpoint.snapshot_key}/{name}" for name in names]
    for _ in range(3):
        publish(database, checkpoint)
    assert delete(database, "numbers:1") == []
    with database.writing() as session:
        assert set(registry.published(session, checkpoint.job_id)) == {checkpoint.snapshot_key}
        session.delete(session.get_one(Checkpoint, checkpoint.id))
    assert delete(database, "numbers:2") == []
    assert delete(database, "numbers:3") == objects


def test_an_alias_never_points_at_a_deleted_version(database: Database, checkpoint: Checkpoint) -> None:
    """Of an alias and a deletion at one moment the second waits for the first to commit, and is then refused."""
    for ref in ("numbers:1", "numbers"):
        publish(database, checkpoint)
        with ThreadPoolExecutor(1) as pool:
            with database.writing() as session:
                registry.put_alias(session, "numbers", "prod", 1)
                deletion = pool.submit(delete, database, ref)
                wait([deletion], timeout=0.3)
            with pytest.raises(InUse):
                deletion.result(timeout=20)
    with database.writing() as session:
        registry.delete_alias(session, "numbers", "prod")
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            registry.delete(session, "numbers:1")
            aliasing = pool.submit(put_alias, database, "numbers", "prod", 1)
            wait([aliasing], timeout=0.3)
        with pytest.raises(Gone):
            aliasing.result(timeout=20)
