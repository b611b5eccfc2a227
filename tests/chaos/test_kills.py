"""Processes die, freeze or are starved in mid-job: the job goes on from its last checkpoint and ends once."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app import datasets
from app.db import BUSY_TIMEOUT_SECONDS
from app.jobs import lifecycle
from app.tables import Job
from tests.chaos.harness import REQUEST, Installation, on_sqlite_alone, wait_for
from tests.servers import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]


def test_trainer_is_killed(house: Installation, dataset: str, undisturbed: str) -> None:
    """kill -9 of the trainer costs an attempt and what was done since the last checkpoint."""
    house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    os.kill(house.trainer_pid(job_id), signal.SIGKILL)
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert "queued:oom_suspected" in house.statuses(job_id)


def test_worker_is_killed(house: Installation, dataset: str, undisturbed: str) -> None:
    """kill -9 of the worker: its trainer ends by itself, and another worker goes on when the lease is over."""
    worker = house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    worker.kill()
    wait_until(lambda: not house.children())
    left_behind = list((house.settings.data_dir / "runs").iterdir())
    assert left_behind
    house.start_worker()
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    assert "queued:worker_lost" in house.statuses(job_id)
    wait_until(lambda: not list((house.settings.data_dir / "runs").iterdir()))


@on_sqlite_alone
def test_api_is_killed(house: Installation, dataset: str, undisturbed: str) -> None:
    """kill -9 of the API changes nothing for a job that runs; the next API knows how it ended."""
    house.start_worker()
    api, url = house.start_api()
    job_id = httpx.post(f"{url}/v1/jobs", json={"dataset": dataset, **REQUEST}).raise_for_status().json()["id"]
    house.wait_for_examples(job_id)
    api.kill()
    house.wait_for_end(job_id)
    house.assert_ended_once(job_id, undisturbed)
    _, url = house.start_api()
    assert httpx.get(f"{url}/v1/jobs/{job_id}").raise_for_status().json()["status"] == "succeeded"


def test_worker_is_frozen_past_its_lease(house: Installation, dataset: str, undisturbed: str) -> None:
    """A worker that is stopped (SIGSTOP) beyond its lease writes nothing when it wakes: another has finished the job.

    Others write to the job at once, or with PostgreSQL, where it was stopped with the job locked, within a lease.
    """
    frozen = house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    house.freeze(frozen)
    began = time.monotonic()
    house.do(lifecycle.locked, job_id)
    # Its renewal may have queued up behind the report that has the lock: each is ended after a quarter of a lease.
    assert time.monotonic() - began < house.settings.lease_seconds
    house.start_worker()
    house.wait_for_end(job_id)
    before = house.rows(Job)
    frozen.send_signal(signal.SIGCONT)
    house.wait_for_log("lease.lost")
    wait_until(lambda: not house.children())
    house.assert_ended_once(job_id, undisturbed)
    assert house.rows(Job) == before
    assert frozen.poll() is None


@on_sqlite_alone
def test_worker_is_frozen_with_the_write_lock(house: Installation, dataset: str) -> None:
    """While a frozen process holds SQLite's write lock, the API reads as ever and refuses to write within the busy timeout.

    Once it goes on, so does everything.
    """
    _, url = house.start_api()
    frozen = house.start_worker()
    house.wait_for_log("celery.* ready")
    house.freeze_with_write_lock(frozen)
    body = {"dataset": dataset, **REQUEST}
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        writes = [pool.submit(httpx.post, f"{url}/v1/jobs", json=body, timeout=60) for _ in range(8)]
        for path in ("/v1/jobs", f"/v1/datasets/{dataset}", "/health/ready"):
            assert httpx.get(f"{url}{path}").status_code == 200
        assert time.monotonic() - began < BUSY_TIMEOUT_SECONDS / 2
        answers = [write.result() for write in writes]
        assert time.monotonic() - began < BUSY_TIMEOUT_SECONDS + 3
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} == {"unavailable"}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    frozen.send_signal(signal.SIGCONT)
    assert httpx.post(f"{url}/v1/jobs", json=body).status_code == 201


def test_trainer_is_killed_again_and_again(house: Installation, dataset: str) -> None:
    """Three runs in a row that are killed before they bring progress end the job, with a reason that a person understands."""
    house.start_worker()
    job_id = house.submit(dataset)
    killed: set[int] = set()
    while house.job(job_id).status != "failed":
        for pid in set(house.children(job_id)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.02)
    job = house.job(job_id)
    assert (len(killed), job.attempt, job.fence) == (3, 3, 3)
    assert job.error is not None
    assert job.error["code"] == "oom_suspected"
    assert "out of memory" in job.error["message"]


def test_preparer_is_killed(house: Installation) -> None:
    """kill -9 of the process that prepares a data set costs an attempt, and the next one ends it."""
    with house.database.writing() as session:
        dataset_id = datasets.register_builtin(session, "digits").id
    house.start_worker()
    (pid,) = wait_for(lambda: house.children(dataset_id))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: house.dataset(dataset_id).status == "succeeded")
    dataset = house.dataset(dataset_id)
    assert (dataset.attempt, dataset.fence, dataset.examples) == (1, 2, 1797)
