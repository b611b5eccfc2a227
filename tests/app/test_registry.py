"""Publishing, references, aliases and deletion of models."""

import threading

import pytest

from app import datasets, registry
from app.db import Database
from app.errors import Gone, InUse, Invalid, InvalidState, NotFound
from app.tables import Checkpoint, Job, ModelVersion
from tests.factories import make_checkpoint, make_dataset, make_job


@pytest.fixture
def database(any_database: Database) -> Database:
    """Each test runs on SQLite and on PostgreSQL."""
    return any_database


@pytest.fixture
def job(database: Database) -> Job:
    with database.writing() as session:
        return make_job(session, make_dataset(session, name="digits"), request={"model": "numbers"})


@pytest.fixture
def checkpoint(database: Database, job: Job) -> Checkpoint:
    with database.writing() as session:
        return make_checkpoint(session, job, 320, kid=0.25)


def publish(database: Database, checkpoint: Checkpoint, name: str = "numbers") -> ModelVersion:
    with database.writing() as session:
        return registry.publish_checkpoint(session, checkpoint.id, name)


def resolve(database: Database, ref: str) -> registry.Resolved:
    with database.reading() as session:
        return registry.resolve(session, ref)


def delete(database: Database, ref: str) -> list[str]:
    with database.writing() as session:
        return registry.delete(session, ref)


def test_publish(database: Database, job: Job, checkpoint: Checkpoint) -> None:
    """A version copies what sampling needs, counts from 1, and takes its job's model name unless told another."""
    with database.writing() as session:
        first = registry.publish_checkpoint(session, checkpoint.id)
        second = registry.publish_checkpoint(session, checkpoint.id)
        other = registry.publish_checkpoint(session, checkpoint.id, "other")
    assert [(row.name, row.version) for row in (first, second, other)] == [("numbers", 1), ("numbers", 2), ("other", 1)]
    assert (first.job_id, first.checkpoint_id) == (job.id, checkpoint.id)
    assert (first.snapshot_key, first.sha256, first.size) == (checkpoint.snapshot_key, checkpoint.sha256, 1000)
    assert (first.examples_seen, first.kid) == (320, 0.25)
    assert first.info == {
        "family": job.config["network"]["family"],
        "height": 8,
        "width": 8,
        "channels": 1,
        "classes": [str(digit) for digit in range(10)],
        "z_dim": job.config["network"]["z_dim"],
        "conditional": True,
        "dataset": {"id": job.dataset_id, "name": "digits", "sha256": "d" * 64},
    }


def test_unconditional_model_has_no_classes(database: Database) -> None:
    """What cannot be asked for is not offered: an unconditional model names no classes."""
    with database.writing() as session:
        config = {"batch_size": 32, "network": {"conditional": False}}
        job = make_job(session, request={"config": config})
        version = registry.publish_checkpoint(session, make_checkpoint(session, job).id)
    assert (version.info["conditional"], version.info["classes"]) == (False, [])


def test_publish_outlives_its_data_set(database: Database, job: Job, checkpoint: Checkpoint) -> None:
    """A checkpoint of a finished job can be published and sampled after its data set was deleted."""
    with database.writing() as session:
        session.get_one(Job, job.id).status = "succeeded"
        session.flush()
        datasets.delete(session, "digits")
    assert publish(database, checkpoint).info["dataset"]["name"] == "digits"
    assert resolve(database, job.id).info["height"] == 8


def test_simultaneous_publishing(database: Database, checkpoint: Checkpoint) -> None:
    """Many transactions that publish at once get numbers without a gap and without a double."""
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(publish(database, checkpoint).version)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


@pytest.mark.parametrize("name", ["ckpt_1", "job_x", "a:b", "a@b", "", "a/b", "x" * 101])
def test_malformed_model_names(database: Database, checkpoint: Checkpoint, name: str) -> None:
    """A model's name can be taken neither for an id nor for a reference."""
    with pytest.raises(Invalid) as caught:
        publish(database, checkpoint, name)
    assert caught.value.errors[0].pointer == "#/model"


def test_publish_of_nothing(database: Database) -> None:
    """An unknown checkpoint is NotFound."""
    with database.writing() as session, pytest.raises(NotFound, match="ckpt_1"):
        registry.publish_checkpoint(session, "ckpt_1", "numbers")


def test_resolve(database: Database, job: Job, checkpoint: Checkpoint) -> None:
    """Every kind of reference leads to its snapshot; only what can never move is pinned."""
    publish(database, checkpoint)
    with database.writing() as session:
        newest = make_checkpoint(session, job, 640, sha256="b" * 64)
    publish(database, newest)
    with database.writing() as session:
        registry.put_alias(session, "numbers", "prod", 1)
    expected = {
        "numbers": ("numbers:2", newest, False),
        "numbers:1": ("numbers:1", checkpoint, True),
        "numbers:2": ("numbers:2", newest, True),
        "numbers@prod": ("numbers:1", checkpoint, False),
        checkpoint.id: (checkpoint.id, checkpoint, True),
        job.id: (newest.id, newest, False),
    }
    for ref, (label, row, pinned) in expected.items():
        resolved = resolve(database, ref)
        assert (resolved.ref, resolved.label, resolved.pinned) == (ref, label, pinned)
        assert (resolved.sha256, resolved.snapshot_key) == (row.sha256, row.snapshot_key)
        assert (resolved.examples_seen, resolved.kid) == (row.examples_seen, row.kid)
        assert resolved.info["dataset"]["name"] == "digits"


@pytest.mark.parametrize(
    "ref",
    ["letters", "letters:1", "letters@prod", "numbers:9", "numbers@test", "ckpt_0", "job_0", "ds_0", "numbers:0",
     "numbers:x", "numbers:-1", "numbers:1:2", "numbers@", "@prod", ":1", "", "numbers:99999999999999999999", "numbers:1\n"],
)  # fmt: skip
def test_unknown_references(database: Database, checkpoint: Checkpoint, ref: str) -> None:
    """Whatever names nothing is NotFound, with a way to find what there is."""
    publish(database, checkpoint)
    with pytest.raises(NotFound, match=r"GET /v1|give its name"):
        resolve(database, ref)


@pytest.mark.parametrize("status", ["queued", "running", "failed"])
def test_job_without_a_snapshot(database: Database, job: Job, status: str) -> None:
    """A job that has made no snapshot says its state and, while it can still make one, when that will be."""
    with database.writing() as session:
        session.get_one(Job, job.id).status = status
    with pytest.raises(InvalidState, match="retry" if status == "failed" else "the first comes") as caught:
        resolve(database, job.id)
    assert caught.value.state == status


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


def test_list_models(database: Database, checkpoint: Checkpoint) -> None:
    """Models are listed by name, each with its living versions and aliases, page by page."""
    for name in ("c", "a", "b", "b", "gone"):
        publish(database, checkpoint, name)
    with database.writing() as session:
        registry.put_alias(session, "b", "prod", 1)
        registry.delete(session, "gone")
    with database.reading() as session:
        first, cursor = registry.list_models(session, limit=2)
        second, end = registry.list_models(session, limit=2, cursor=cursor)
        with pytest.raises(Invalid, match="cursor"):
            registry.list_models(session, cursor="x")
    assert [model.name for model in [*first, *second]] == ["a", "b", "c"]
    assert end is None
    assert [version.version for version in first[1].versions] == [2, 1]
    assert (first[0].aliases, first[1].aliases) == ({}, {"prod": 1})


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
    objects = [f"{checkpoint.snapshot_key}/generator.safetensors", f"{checkpoint.snapshot_key}/model.json"]
    for _ in range(3):
        publish(database, checkpoint)
    assert delete(database, "numbers:1") == []
    with database.writing() as session:
        assert set(registry.published(session, checkpoint.job_id)) == {checkpoint.snapshot_key}
        session.delete(session.get_one(Checkpoint, checkpoint.id))
    assert delete(database, "numbers:2") == []
    assert delete(database, "numbers:3") == objects
