"""Beginning with a model: which snapshot it is, whether it fits, and that it stays while it is needed."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import jobs, registry
from app.db import Database
from app.errors import Gone, InUse, Invalid, InvalidState, NotFound
from app.tables import Dataset, Job, ModelVersion
from tests.factories import claimed, make_checkpoint, make_dataset, make_job

SMALL = {"batch_size": 32, "network": {"family": "dcgan", "width": 8, "z_dim": 12}}


def published(session: Session, name: str = "digits") -> ModelVersion:
    """A version of a small network."""
    job = make_job(session, request={"config": SMALL, "model": name})
    return registry.publish_checkpoint(session, make_checkpoint(session, job).id)


def begin(session: Session, ref: str, dataset: Dataset | None = None, **request: Any) -> Job:
    dataset = dataset or make_dataset(session)
    asked: dict[str, Any] = {"config": {"batch_size": 32}, "budget": {"examples": 640}}
    return jobs.submit(session, dataset=dataset.id, initial=ref, **(asked | request))


@pytest.mark.parametrize("ref", ["digits", "digits:1", "digits@prod"])
def test_a_version_is_fixed_when_it_is_submitted(any_database: Database, ref: str) -> None:
    """The job keeps which version the reference meant then, and its network has the options of that model's."""
    with any_database.writing() as session:
        version = published(session)
        registry.put_alias(session, "digits", "prod", 1)
        job = begin(session, ref)
        published(session)
        registry.put_alias(session, "digits", "prod", 2)
    assert job.initial == {"ref": "digits:1", "snapshot_key": version.snapshot_key, "sha256": version.sha256}
    assert (job.config["network"]["width"], job.config["network"]["z_dim"]) == (8, 12)


def test_a_job_and_its_checkpoints_can_be_begun_with(any_database: Database) -> None:
    """A checkpoint's id, and the newest snapshot of a job, also while that trains."""
    with any_database.writing() as session:
        source = claimed(session, make_job(session, request={"config": SMALL}))
        with pytest.raises(InvalidState):
            begin(session, source.id)
        checkpoint = make_checkpoint(session, source)
        found = [begin(session, ref).initial for ref in (source.id, checkpoint.id)]
    assert [initial and initial["ref"] for initial in found] == [checkpoint.id] * 2


def test_classes_may_differ(any_database: Database) -> None:
    """A data set of other classes, or of none, begins with the model all the same."""
    with any_database.writing() as session:
        published(session)
        unlabelled = make_dataset(session, classes=[])
        two = make_dataset(session, classes=[{"name": name, "count": 100} for name in "ab"])
        conditional = [begin(session, "digits", data).config["network"]["conditional"] for data in (unlabelled, two)]
    assert conditional == [False, True]


@pytest.mark.parametrize(
    ("network", "components"),
    [({"conditional": False}, 4), ({}, 1), ({"conditional": False, "components": 2}, 2)],
    ids=["no classes either", "classes", "as asked"],
)
def test_components_stay_where_the_classes_do(any_database: Database, network: dict[str, Any], components: int) -> None:
    """Else the tensors that tell them apart would have another size, and begin anew."""
    with any_database.writing() as session:
        options = SMALL["network"] | {"conditional": False, "components": 4}
        job = make_job(session, request={"config": SMALL | {"network": options}, "model": "kinds"})
        registry.publish_checkpoint(session, make_checkpoint(session, job).id)
        begun = begin(session, "kinds", config={"batch_size": 32, "network": network})
    assert begun.config["network"]["components"] == components


MISFITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"network": {"width": 16}}, "its width is 8 and the job's 16"),
    ({}, {"network": {"z_dim": 64}}, "its z_dim is 12 and the job's 64"),
    ({}, {"network": {"family": "mlp"}}, "its family is dcgan and the job's mlp"),
    ({"height": 16, "width": 16}, {}, "it makes 8 x 8 x 1 and the data set has 16 x 16 x 1"),
    ({"channels": 3}, {}, "it makes 8 x 8 x 1 and the data set has 8 x 8 x 3"),
]


@pytest.mark.parametrize(("columns", "config", "says"), MISFITS)
def test_what_does_not_fit_is_refused(
    any_database: Database, columns: dict[str, Any], config: dict[str, Any], says: str
) -> None:
    """Another network or another shape is Invalid at #/initial, and the message says what differs."""
    with any_database.writing() as session:
        published(session)
        with pytest.raises(Invalid, match=says) as refused:
            begin(session, "digits", make_dataset(session, **columns), config={"batch_size": 32} | config)
    assert [error.pointer for error in refused.value.errors] == ["#/initial"]


def test_a_version_of_an_older_release_fits_by_what_it_says(any_database: Database) -> None:
    """One that does not know all of its network's options is compared by family, z and shape."""
    with any_database.writing() as session:
        version = published(session)
        version.info = {name: value for name, value in version.info.items() if name != "network"}
        session.flush()
        job = begin(session, "digits", config=SMALL)
        with pytest.raises(Invalid, match="its z_dim is 12"):
            begin(session, "digits", config={"network": {"z_dim": 13}})
    assert job.initial is not None


def test_what_is_not_there_cannot_be_begun_with(any_database: Database) -> None:
    """An unknown model is NotFound and a deleted version Gone, for a plan as for a submission."""
    with any_database.writing() as session:
        published(session)
        registry.delete(session, "digits:1")
        dataset = make_dataset(session)
        for ref, error in (("letters", NotFound), ("ckpt_0", NotFound), ("digits:1", Gone), ("digits", Gone)):
            for function in (jobs.plan, jobs.submit):
                with pytest.raises(error):
                    function(session, dataset=dataset.id, initial=ref)


def test_a_version_stays_while_a_job_needs_it(any_database: Database) -> None:
    """It cannot be deleted before every job that begins with it has ended; others of the model can."""
    with any_database.writing() as session:
        published(session)
        published(session)
        job = begin(session, "digits:1")
        for ref in ("digits:1", "digits"):
            with pytest.raises(InUse, match=job.id):
                registry.delete(session, ref)
        registry.delete(session, "digits:2")
        jobs.cancel(session, job.id)
        assert registry.delete(session, "digits:1") == []


def test_a_job_stays_while_another_begins_with_its_checkpoint(any_database: Database) -> None:
    """It cannot be deleted before that one has ended."""
    with any_database.writing() as session:
        source = make_job(session, request={"config": SMALL})
        checkpoint = make_checkpoint(session, source)
        jobs.cancel(session, source.id)
        job = begin(session, checkpoint.id)
        with pytest.raises(InUse, match=job.id):
            jobs.delete(session, source.id)
        jobs.cancel(session, job.id)
        jobs.delete(session, source.id)


def test_a_retry_needs_it_only_to_begin(any_database: Database) -> None:
    """A job whose model was deleted since is retried from its own checkpoint, and is Gone without one."""
    with any_database.writing() as session:
        published(session)
        begun, bare = begin(session, "digits"), begin(session, "digits")
        make_checkpoint(session, begun)
        for job in (begun, bare):
            jobs.cancel(session, job.id)
        registry.delete(session, "digits")
        assert jobs.retry(session, begun.id).status == "queued"
        with pytest.raises(Gone, match="digits:1, was deleted"):
            jobs.retry(session, bare.id)
