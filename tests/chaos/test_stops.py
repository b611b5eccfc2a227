"""Stopping at a step, checkpointing and going back to the queue: pause, cancel, preemption, turns, deploys. One path."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from app import jobs
from app.tables import ModelVersion
from tests.chaos.harness import Installation, installation, on_sqlite_alone
from tests.servers import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]


@on_sqlite_alone
def test_pause_and_resume(house: Installation, dataset: str, undisturbed: str) -> None:
    """A paused job keeps what it learned and goes on to the same bytes when it is resumed."""
    house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    house.do(jobs.pause, job_id)
    house.wait_for_status(job_id, "paused")
    assert not house.children()
    house.do(jobs.resume, job_id)
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert house.job(job_id).attempt == 0


@on_sqlite_alone
def test_cancel(house: Installation, dataset: str) -> None:
    """A cancelled job ends without a model version and keeps its snapshots."""
    house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    house.do(jobs.cancel, job_id)
    house.wait_for_status(job_id, "cancelled")
    with house.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == 0
    assert house.newest_checkpoint(job_id) > 0


@on_sqlite_alone
def test_higher_priority_goes_first(house: Installation, dataset: str, undisturbed: str) -> None:
    """A job of higher priority takes the place of a running one, which goes on afterwards as if nothing had been."""
    house.start_worker()
    low = house.submit(dataset)
    house.wait_for_examples(low)
    high = house.submit(dataset, priority=5)
    for job_id in (high, low):
        house.wait_for_end(job_id)
        house.assert_ended_once(job_id, undisturbed)
    assert "queued:yield" in house.statuses(low)
    assert "queued:yield" not in house.statuses(high)
    assert (house.job(high).finished_at or 0) < (house.job(low).finished_at or 0)


@on_sqlite_alone
def test_worker_is_deployed(house: Installation, dataset: str, undisturbed: str) -> None:
    """SIGTERM to the worker: its job is checkpointed and queued again without an attempt, and the next worker goes on."""
    worker = house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    worker.terminate()
    assert worker.wait(30) == 0
    assert not house.children()
    assert house.job(job_id).status == "queued"
    stopped_at = house.newest_checkpoint(job_id)
    house.start_worker()
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert "queued:deploy" in house.statuses(job_id)
    assert (house.job(job_id).attempt, stopped_at > 0) == (0, True)


@on_sqlite_alone
def test_equal_jobs_take_turns(
    tmp_path: Path, redis_url: str, place: dict[str, str], digits_prepared: Path, undisturbed: str
) -> None:
    """Two jobs of one priority share a slot by time slices, and neither is the worse for it."""
    with installation(tmp_path, redis_url, **place, time_slice_seconds=1.5) as house:
        dataset = house.add_dataset(digits_prepared)
        house.start_worker()
        first, second = house.submit(dataset), house.submit(dataset)
        for job_id in (first, second):
            house.wait_for_end(job_id)
            house.assert_ended_once(job_id, undisturbed)
            assert house.job(job_id).attempt == 0
        assert "queued:yield" in house.statuses(first)
        assert "queued:yield" in house.statuses(second)


@on_sqlite_alone
def test_slots_train_side_by_side(
    tmp_path: Path, redis_url: str, place: dict[str, str], digits_prepared: Path, undisturbed: str
) -> None:
    """A worker with two slots trains two jobs at once, and a third when one has ended."""
    with installation(tmp_path, redis_url, **place, train_slots=2) as house:
        dataset = house.add_dataset(digits_prepared)
        house.start_worker()
        job_ids = [house.submit(dataset) for _ in range(3)]
        wait_until(lambda: len(house.children()) == 2)
        for job_id in job_ids:
            house.wait_for_end(job_id)
            house.assert_ended_once(job_id, undisturbed)
            assert house.job(job_id).fence == 1
