"""Publishing models."""

import threading

import pytest

from app import datasets, registry
from app.db import Database
from app.errors import Invalid, NotFound
from app.tables import Checkpoint, Job
from tests.app.registry.versions import publish, resolve
from tests.factories import make_checkpoint, make_job


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
        "network": job.config["network"],
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
