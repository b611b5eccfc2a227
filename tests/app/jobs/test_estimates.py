"""How long a planned job would take."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import jobs
from app.db import Database
from app.jobs.estimates import estimated_seconds
from app.tables import Dataset
from tests.factories import make_dataset, make_job


def estimate(session: Session, dataset: Dataset, **request: Any) -> float | None:
    return estimated_seconds(session, jobs.plan(session, dataset=dataset.id, **request))


def test_a_job_is_expected_to_go_as_the_last_one_like_it(any_database: Database) -> None:
    """The speed is that of the newest job of the same networks and batch on images of the same shape, whichever data set."""
    asked: dict[str, Any] = {"config": {"batch_size": 32}, "budget": {"examples": 6400}}
    with any_database.writing() as session:
        dataset, same_shape = make_dataset(session), make_dataset(session)
        assert estimate(session, dataset, **asked) is None
        for seconds in (100.0, 50.0):
            make_job(session, dataset, progress={"examples_seen": 1000, "elapsed_seconds": seconds})
        make_job(session, dataset, progress={"examples_seen": 0})
        assert estimate(session, dataset, **asked) == pytest.approx(320)
        assert estimate(session, same_shape, **asked) == pytest.approx(320)
        assert estimate(session, same_shape, **(asked | {"budget": {"epochs": 1}})) == pytest.approx(10)


@pytest.mark.parametrize(
    "config",
    [{"batch_size": 16}, {"network": {"width": 8}}, {"threads": 1}, {"processes": 2}, {"precision": "fp32"}],
)
def test_unlike_jobs_say_nothing(any_database: Database, config: dict[str, Any]) -> None:
    """Other networks, batches, threads, processes, precisions and image sizes go at other speeds."""
    with any_database.writing() as session:
        dataset, larger = make_dataset(session), make_dataset(session, height=16, width=16)
        make_job(session, dataset, progress={"examples_seen": 1000, "elapsed_seconds": 10.0})
        assert estimate(session, dataset, config={"batch_size": 32} | config) is None
        assert estimate(session, larger, config={"batch_size": 32}) is None


def test_a_job_of_an_older_release_says_nothing(any_database: Database) -> None:
    """A job whose config lacks a part that decides the speed is unlike every new one."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        job = make_job(session, dataset, progress={"examples_seen": 1000, "elapsed_seconds": 10.0})
        job.config = {part: value for part, value in job.config.items() if part != "precision"}
        session.flush()
        assert estimate(session, dataset, config={"batch_size": 32}) is None


def test_a_budget_in_seconds_is_its_own_estimate(any_database: Database) -> None:
    """That is how long it trains."""
    with any_database.writing() as session:
        assert estimate(session, make_dataset(session), budget={"seconds": 90}) == 90
