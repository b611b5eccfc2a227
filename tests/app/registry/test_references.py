"""What references mean, and the list of models."""

import pytest

from app import registry
from app.db import Database
from app.errors import Invalid, InvalidState, NotFound
from app.tables import Checkpoint, Job, ModelVersion
from tests.app.registry.versions import publish, resolve
from tests.factories import make_checkpoint


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


@pytest.mark.parametrize("ref", ["numbers", "numbers:1", "numbers@prod"])
@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("queued", "{job}, which is queued, is to make it; until then use that id"),
        ("running", "{job}, which is running, is to make it"),
        ("paused", "{job}, which is paused, is to make it"),
        ("failed", "There is no model 'numbers': GET /v1/models lists"),
    ],
)
def test_a_model_that_is_being_trained(database: Database, job: Job, status: str, says: str, ref: str) -> None:
    """Before its first version, its name leads to the job that makes it, for as long as that may still do so, and so does a
    version or an alias of it.
    """
    with database.writing() as session:
        session.get_one(Job, job.id).status = status
    with pytest.raises(NotFound, match=says.format(job=job.id)):
        resolve(database, ref)


def test_a_version_that_is_not_there_yet(database: Database, job: Job, checkpoint: Checkpoint) -> None:
    """Once a model has had a version, another number is no such version, though a job trains, and after all are deleted."""
    publish(database, checkpoint)
    for _ in range(2):
        with pytest.raises(NotFound, match="no model version numbers:2"):
            resolve(database, "numbers:2")
        with database.writing() as session:
            session.get_one(ModelVersion, ("numbers", 1)).deleted_at = job.created_at


@pytest.mark.parametrize("status", ["queued", "running", "failed"])
def test_job_without_a_snapshot(database: Database, job: Job, status: str) -> None:
    """A job that has made no snapshot says its state and, while it can still make one, when that will be."""
    with database.writing() as session:
        session.get_one(Job, job.id).status = status
    with pytest.raises(InvalidState, match="retry" if status == "failed" else "the first comes") as caught:
        resolve(database, job.id)
    assert caught.value.state == status


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
