"""From a request to a queued job: what is filled in, what is refused and how it is said."""

import json
from typing import Any

import pytest

from app import jobs
from app.db import Database
from app.errors import Gone, Invalid, InvalidState, NotFound
from app.tables import Job
from tests.factories import make_dataset, make_job


def test_a_data_set_is_enough(any_database: Database) -> None:
    """With nothing but a data set the job is queued with a whole config, under the data set's name, with a drawn seed."""
    with any_database.writing() as session:
        dataset = make_dataset(session, name="cats")
        job = jobs.submit(session, dataset="cats")
    assert (job.dataset_id, job.model_name, job.status, job.fence) == (dataset.id, "cats", "queued", 0)
    assert (job.preset, job.chosen_preset) == ("auto", "few-shot")
    assert job.preset_reason is not None
    assert job.preset_reason.startswith("200 images of 8 x 8 with 10 classes")
    assert 0 <= job.config["seed"] < 2**53
    assert job.config["threads"] is None  # for the machine that trains to decide
    assert job.progress == {"examples_seen": 0, "examples_total": job.config["budget"]["examples"]}


def test_a_plan_is_what_a_job_becomes(any_database: Database) -> None:
    """A dry run gives the config of the job that the same request submits, and leaves no row."""
    request: dict[str, Any] = {"preset": "vanilla", "config": {"batch_size": 16}, "budget": {"epochs": 2.5}, "seed": 7}
    with any_database.writing() as session:
        dataset = make_dataset(session)
        planned = jobs.plan(session, dataset=dataset.id, **request)
        assert jobs.list_jobs(session)[0] == []
        job = jobs.submit(session, dataset=dataset.id, **request)
    assert (planned.config, planned.examples_total, planned.model) == (job.config, 500, job.model_name)
    assert (job.config["batch_size"], job.config["seed"], job.config["network"]["family"]) == (16, 7, "mlp")


def test_seeds_are_drawn_anew_and_kept_when_given(database: Database) -> None:
    """Two jobs without a seed get two; one that stands in the config is kept."""
    with database.writing() as session:
        dataset = make_dataset(session)
        drawn = {jobs.submit(session, dataset=dataset.id).config["seed"] for _ in range(2)}
        assert len(drawn) == 2
        assert jobs.submit(session, dataset=dataset.id, config={"seed": 2**63 - 1}).config["seed"] == 2**63 - 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"preset": "quick"}, "#/preset"),
    ({"model": "job_1"}, "#/model"),
    ({"model": "../x"}, "#/model"),
    ({"model": ""}, "#/model"),
    ({"budget": {"examples": 0}}, "#/budget/examples"),
    ({"budget": {"epochs": -1}}, "#/budget/epochs"),
    ({"budget": {"seconds": 1e99}}, "#/budget/seconds"),
    ({"budget": {}}, "#/budget"),
    ({"budget": {"examples": 1, "epochs": 1}}, "#/budget"),
    ({"config": {"budget": {"examples": 0}}}, "#/config/budget/examples"),
    ({"seed": -1}, "#/seed"),
    ({"seed": 2**63}, "#/seed"),
    ({"config": {"seed": "x"}}, "#/config/seed"),
    ({"config": {"batch_size": 0}}, "#/config/batch_size"),
    ({"config": {"batch_size": 201}}, "#/config/batch_size"),
    ({"config": {"batchsize": 8}}, "#/config/batchsize"),
    ({"config": {"loss": "hings"}}, "#/config/loss"),
    ({"config": {"network": {"family": "biggan"}}}, "#/config/network/family"),
    ({"config": {"network": {"width": "wide"}}}, "#/config/network/width"),
    ({"config": {"optimizer": {"beta1": 1}}}, "#/config/optimizer/beta1"),
    ({"priority": 1001}, "#/priority"),
    ({"metadata": {"x": float("nan")}}, "#/metadata"),
    ({"metadata": {"x": "\ud800"}}, "#/metadata"),
]


@pytest.mark.parametrize(("request_", "pointer"), REFUSED, ids=json.dumps)
def test_a_bad_request_names_the_field(database: Database, request_: dict[str, Any], pointer: str) -> None:
    """What cannot be trained is refused with a pointer to the field, and nothing is left behind."""
    with pytest.raises(Invalid) as refused, database.writing() as session:
        jobs.submit(session, dataset=make_dataset(session).id, **request_)
    assert pointer in [error.pointer for error in refused.value.errors]
    with database.reading() as session:
        assert jobs.list_jobs(session)[0] == []


def test_conditional_needs_classes(database: Database) -> None:
    """An unlabelled data set trains unconditionally by default, and refuses to be conditional."""
    with database.writing() as session:
        dataset = make_dataset(session, classes=[])
        assert jobs.submit(session, dataset=dataset.id).config["network"]["conditional"] is False
        with pytest.raises(Invalid) as refused:
            jobs.submit(session, dataset=dataset.id, config={"network": {"conditional": True}})
    assert [error.pointer for error in refused.value.errors] == ["#/config/network/conditional"]


@pytest.mark.parametrize(
    ("columns", "error", "says"),
    [
        ({"status": "queued"}, InvalidState, "still being prepared"),
        ({"status": "running"}, InvalidState, "still being prepared"),
        (
            {"status": "failed", "error": {"code": "no_images", "message": "No image in it."}},
            InvalidState,
            "No image in it.",
        ),
        ({"deleted_at": 1.0}, Gone, "deleted"),
    ],
)
def test_only_a_ready_data_set_trains(
    any_database: Database, columns: dict[str, Any], error: type[Exception], says: str
) -> None:
    """A data set that is not ready, failed or deleted refuses the job and says why."""
    with any_database.writing() as session, pytest.raises(error, match=says):
        jobs.submit(session, dataset=make_dataset(session, **columns).id)


def test_features_that_the_data_do_not_have_are_refused(database: Database) -> None:
    """With the reason that their preparation gave, unless nothing is measured."""
    with database.writing() as session:
        report = {"features": "no classifier was trained: too few images"}
        dataset = make_dataset(session, report=report)
        for settings in ({"features": "random"}, {"features": "auto"}, {"features": "classifier", "samples": 0}):
            jobs.plan(session, dataset=dataset.id, config={"evaluation": settings})
        with pytest.raises(Invalid, match="too few images") as refused:
            jobs.plan(session, dataset=dataset.id, config={"evaluation": {"features": "classifier"}})
        assert [error.pointer for error in refused.value.errors] == ["#/config/evaluation/features"]
        jobs.plan(session, dataset=make_dataset(session).id, config={"evaluation": {"features": "classifier"}})


def test_an_unknown_data_set_is_not_found(database: Database) -> None:
    """A data set that nobody made is NotFound."""
    with database.writing() as session, pytest.raises(NotFound):
        jobs.submit(session, dataset="nothing")


def test_a_longer_budget_is_checked_like_a_new_one(any_database: Database) -> None:
    """A budget can be extended; the rest of the config stays, and a used up or senseless one is refused."""
    with any_database.writing() as session:
        job = make_job(
            session, request={"preset": "vanilla", "config": {"batch_size": 8}}, progress={"examples_seen": 640}
        )
        before = job.config
        jobs.update(session, job.id, budget={"epochs": 10})
        assert job.config == before | {"budget": {"examples": None, "epochs": 10.0, "seconds": None}}
        assert job.progress["examples_total"] == 2000
        for budget in ({"examples": 640}, {"examples": -1}, {"hours": 3}):
            with pytest.raises(Invalid):
                jobs.update(session, job.id, budget=budget)
    with any_database.reading() as session:
        assert session.get_one(Job, job.id).config["budget"]["epochs"] == 10.0


@pytest.mark.parametrize("status", ["running", "succeeded"])
def test_no_budget_changes_under_a_trainer(database: Database, status: str) -> None:
    """The budget of a job that runs, or that ended with a model, cannot be changed."""
    with database.writing() as session:
        job = make_job(session, status=status)
        with pytest.raises(InvalidState):
            jobs.update(session, job.id, budget={"examples": 10_000})
