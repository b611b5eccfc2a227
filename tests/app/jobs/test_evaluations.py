"""Evaluations: an event like a tick, the newest on the job, each one on its checkpoint and on what is published from it."""

from typing import Any

import pytest

from app import jobs, registry
from app.db import Database
from app.jobs import NewEvent, history
from tests.factories import claimed, make_job, new_checkpoint


def evaluation(examples_seen: int, kid: float | None, **data: Any) -> NewEvent:
    return NewEvent("evaluation", {"kid": kid, **data}, examples_seen, examples_seen / 100)


def tick(examples_seen: int, **data: Any) -> NewEvent:
    return NewEvent("metrics", data, examples_seen, examples_seen / 50)


def test_a_repeated_evaluation_replaces_the_first(any_database: Database) -> None:
    """One that a resumed run reports again takes the row's place; the job shows the newest one whole."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        features = {"name": "classifier", "dimensions": 64}
        for kid in (0.5, 0.4):
            jobs.report(session, job.id, job.fence, [evaluation(320, kid, features=features, notes=["few images"])])
    with any_database.reading() as session:
        (event,) = history.events(session, job.id, kinds=["evaluation"])
        shown = jobs.get(session, job.id).evaluation
    expected = {"elapsed_seconds": 3.2, "kid": 0.4, "features": features, "notes": ["few images"]}
    assert (event.examples_seen, event.data, shown) == (320, expected, expected)


def test_a_checkpoint_keeps_the_report_of_its_place(any_database: Database) -> None:
    """The whole report goes with the checkpoint after as many examples, and with the version that is published from it."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        for seen, kid in ((320, 0.2), (480, None), (640, 0.3)):
            if kid is not None:
                jobs.report(session, job.id, job.fence, [evaluation(seen, kid, coverage=1 - kid)])
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen, kid=kid))
        jobs.succeed(session, job.id, job.fence)
    with any_database.reading() as session:
        reports = {row.examples_seen: row.evaluation for row in history.checkpoints(session, job.id)}
        published = registry.resolve(session, job.model_name)
    assert reports[480] is None
    assert [reports[seen] and reports[seen]["coverage"] for seen in (320, 640)] == [0.8, 0.7]
    assert (published.examples_seen, published.kid, published.evaluation) == (320, 0.2, reports[320])


def test_evaluations_are_columns_beside_the_metrics(any_database: Database) -> None:
    """Their plain numbers are columns, also where there was no tick; a tick's own figures count where both have one."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        reported = [
            tick(100, loss_g=1.0),
            evaluation(150, 0.5, features={"name": "random"}, notes=[]),
            evaluation(200, None, duplicates=0),
            tick(200, loss_g=2.0),
        ]
        jobs.report(session, job.id, job.fence, reported)
        assert history.metrics(session, job.id) == {
            "examples_seen": [100, 150, 200],
            "elapsed_seconds": [2.0, 1.5, 4.0],
            "loss_g": [1.0, None, 2.0],
            "kid": [None, 0.5, None],
            "duplicates": [None, None, 0],
        }
        assert history.metrics(session, job.id, ["kid"]) == {
            "examples_seen": [100, 150, 200],
            "kid": [None, 0.5, None],
        }


@pytest.mark.parametrize("most", [2, 4, 10])
def test_evaluations_survive_the_thinning(any_database: Database, most: int) -> None:
    """Of few points up to half are evaluations, the others are of ticks, and there are no more than were asked for."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        ticks = [tick(seen, loss_g=1.0) for seen in range(10, 1000, 10)]
        jobs.report(session, job.id, job.fence, ticks + [evaluation(seen, 0.1) for seen in range(105, 1000, 100)])
        columns = history.metrics(session, job.id, max_points=most)
    places = columns["examples_seen"]
    assert len(places) == most
    assert sum(kid is not None for kid in columns.get("kid", [])) == (most // 2 if most >= 4 else 0)
    assert (places[0], 990 in places) == (10, True)


def test_the_best_is_chosen_by_kids_of_the_same_features(any_database: Database) -> None:
    """Of the last evaluation: numbers in other features cannot be compared."""
    measured = [("inception", 0.02), ("inception", 0.01), ("classifier", 0.9), ("classifier", 0.2), ("classifier", 0.3)]
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        for seen, (features, kid) in enumerate(measured, 1):
            told = evaluation(32 * seen, kid, features={"name": features, "dim": 8})
            jobs.report(session, job.id, job.fence, [told])
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 32 * seen, kid=kid))
        assert [row.examples_seen for row in history.checkpoints(session, job.id) if row.best] == [4 * 32]
