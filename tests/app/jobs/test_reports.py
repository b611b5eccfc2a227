"""What a claim reports: events, progress, checkpoints, the engine's fingerprint."""

from typing import Any

import pytest
from sqlalchemy import select

from app import jobs
from app.db import Database
from app.jobs import NewEvent, history
from app.tables import Checkpoint
from tests.factories import claimed, make_job, new_checkpoint


def tick(examples_seen: int, **data: Any) -> NewEvent:
    return NewEvent("metrics", data, examples_seen, examples_seen / 100)


def test_events_keep_their_order(any_database: Database) -> None:
    """Events come back in the order they were reported, under rising numbers."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        jobs.report(
            session,
            job.id,
            job.fence,
            [tick(32), NewEvent("grid", {"key": "g"}, 32), NewEvent("log", {"message": "x"})],
        )
        jobs.report(session, job.id, job.fence, [tick(64)])
        jobs.report(session, job.id, job.fence, [])
        found = history.events(session, job.id)
    assert [event.kind for event in found] == ["status", "status", "metrics", "grid", "log", "metrics"]
    assert [event.seq for event in found] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_stretch_does_not_appear_twice(any_database: Database) -> None:
    """Ticks that a later claim reports again replace the rows, under fresh numbers; logs are kept."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        first = [
            tick(32, loss_g=1.0),
            tick(64, loss_g=1.0),
            NewEvent("grid", {"key": "1"}, 64),
            NewEvent("log", {}, 64),
        ]
        jobs.report(session, job.id, job.fence, first)
        jobs.release(session, job.id, job.fence, "deploy")
        claimed(session, job)
        seq = job.last_seq
        again = [
            tick(64, loss_g=2.0),
            tick(64, loss_g=3.0),
            NewEvent("grid", {"key": "2"}, 64),
            NewEvent("log", {}, 64),
        ]
        jobs.report(session, job.id, job.fence, again)
        assert history.metrics(session, job.id, ["loss_g"]) == {"examples_seen": [32, 64], "loss_g": [1.0, 3.0]}
        assert [event.data["key"] for event in history.grids(session, job.id)] == ["2"]
        assert [event.kind for event in history.events(session, job.id, after=seq)] == ["metrics", "grid", "log"]
        assert len(history.events(session, job.id, kinds=["log"])) == 2


def test_progress_follows_the_metrics(any_database: Database) -> None:
    """The row shows where the newest metrics were, and what they said."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        data = {"loss_g": 0.7, "examples_per_second": 100.0, "eta_seconds": 5.5, "examples_total": 672}
        jobs.report(session, job.id, job.fence, [tick(64, **data)])
        assert job.progress == {
            "examples_seen": 64,
            "examples_total": 672,
            "examples_per_second": 100.0,
            "eta_seconds": 5.5,
            "elapsed_seconds": 0.64,
        }
        assert job.metrics == {"elapsed_seconds": 0.64, **data}


def test_what_is_no_number_is_stored_as_null(any_database: Database) -> None:
    """NaN and infinity, which JSON does not know, become null, however deep they are."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        data = {"loss_g": float("nan"), "deep": [{"x": float("inf")}, 1.5]}
        jobs.report(session, job.id, job.fence, [tick(32, **data)])
    with any_database.reading() as session:
        stored = history.events(session, job.id, kinds=["metrics"])[0].data
    assert stored == {"elapsed_seconds": 0.32, "loss_g": None, "deep": [{"x": None}, 1.5]}


def test_a_verdict_is_kept_in_the_row(database: Database) -> None:
    """The newest verdict stands in the job's row."""
    with database.writing() as session:
        job = claimed(session, make_job(session))
        verdict = {"verdict": "collapsed", "message": "All samples look alike."}
        jobs.report(session, job.id, job.fence, [NewEvent("verdict", verdict, 32)])
        assert job.verdict == verdict


def test_unknown_kinds_are_refused(database: Database) -> None:
    """A kind that no claim reports is an error of the caller."""
    with database.writing() as session:
        job = claimed(session, make_job(session))
        with pytest.raises(ValueError, match="status"):
            jobs.report(session, job.id, job.fence, [NewEvent("status", {})])


def test_the_engine_of_a_job_is_the_one_that_it_began_with(any_database: Database) -> None:
    """The fingerprint is that of the newest run that began from nothing; one that goes on under another leaves it."""
    kept = []
    with any_database.writing() as session:
        job = make_job(session)
        for threads, resumed in ((1, False), (2, False), (3, True)):
            claimed(session, job)
            started = {"fingerprint": {"device": "cpu", "threads": threads}, "resumed": resumed}
            jobs.report(session, job.id, job.fence, [NewEvent("started", started, 0)])
            jobs.release(session, job.id, job.fence, "deploy")
            kept.append(job.fingerprint["threads"])
        assert history.events(session, job.id, kinds=["warning"]) == []
    assert kept == [1, 2, 2]


def test_only_newest_and_best_keep_their_state(any_database: Database) -> None:
    """Each checkpoint names the training state that is no longer needed; snapshots all stay."""
    unneeded = []
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        for seen, kid in ((1, None), (2, None), (3, 0.5), (4, 0.9), (5, 0.7), (6, 0.4)):
            new = new_checkpoint(job, seen, kid=kid, state_key=f"s{seen}")
            unneeded.append(jobs.record_checkpoint(session, job.id, job.fence, new))
        found = history.checkpoints(session, job.id)
    assert unneeded == [[], ["s1"], ["s2"], [], ["s4"], ["s3", "s5"]]
    assert [(row.examples_seen, row.state_key, row.best) for row in found] == [
        (6, "s6", True),
        *((seen, None, False) for seen in (5, 4, 3, 2, 1)),
    ]


def test_the_newest_state_outlives_newer_snapshots(any_database: Database) -> None:
    """A checkpoint without state is a snapshot alone: what can be resumed from stays until a newer one can."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        unneeded = [
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen, state_key=state))
            for seen, state in ((1, "s1"), (2, None), (3, None), (4, "s4"))
        ]
        resumed = jobs.resume_from(session, job)
    assert unneeded == [[], [], [], ["s1"]]
    assert resumed is not None
    assert resumed.examples_seen == 4


def test_only_what_can_be_gone_on_from_is_progress(any_database: Database) -> None:
    """A snapshot without its training state leaves the count of lost runs; a checkpoint that has it ends the count."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session, attempt=2))
        attempts = []
        for seen, state in ((1, None), (2, "s2")):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen, state_key=state))
            attempts.append(job.attempt)
    assert attempts == [2, 0]


def test_a_slow_upload_does_not_turn_progress_back(any_database: Database) -> None:
    """A checkpoint that is stored after later metrics leaves progress where it is; one that is ahead moves it."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        jobs.report(session, job.id, job.fence, [tick(64)])
        seen = []
        for examples_seen in (32, 96):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, examples_seen))
            seen.append(job.progress["examples_seen"])
    assert seen == [64, 96]


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
def test_a_later_claims_checkpoint_replaces_the_same_one(any_database: Database, same: bool) -> None:
    """A checkpoint at the same place from a later claim lets the old state go; the id stays only with the same bytes."""
    with any_database.writing() as session:
        job = claimed(session, make_job(session))
        jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 320))
        before = session.scalars(select(Checkpoint)).one()
        checkpoint_id, old_state = before.id, before.state_key
        jobs.release(session, job.id, job.fence, "deploy")
        claimed(session, job)
        again = new_checkpoint(job, 320, sha256="c" * 64 if same else "d" * 64)
        assert jobs.record_checkpoint(session, job.id, job.fence, again) == [old_state]
        assert jobs.record_checkpoint(session, job.id, job.fence, again) == []
    with any_database.reading() as session:
        row = session.scalars(select(Checkpoint)).one()
        assert (row.id == checkpoint_id) is same
        assert (row.fence, row.state_key, row.sha256, row.best) == (2, again.state_key, again.sha256, True)
        events = history.events(session, job.id, kinds=["checkpoint"])
        assert [(event.examples_seen, event.data["id"]) for event in events] == [(320, row.id)]
