"""Processes die, freeze or are starved in mid-job: the job goes on from its last checkpoint and ends once."""

import os
import signal
import time

import httpx

from app import datasets
from app.tables import Job
from tests.chaos.harness import REQUEST, Installation, wait_for
from tests.servers import wait_until


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
    """A worker that is stopped (SIGSTOP) beyond its lease writes nothing when it wakes: another has finished the job."""
    frozen = house.start_worker()
    job_id = house.submit(dataset)
    house.wait_for_examples(job_id)
    house.freeze(frozen)
    house.start_worker()
    house.wait_for_end(job_id)
    before = house.rows(Job)
    frozen.send_signal(signal.SIGCONT)
    house.wait_for_log("lease.lost")
    wait_until(lambda: not house.children())
    house.assert_ended_once(job_id, undisturbed)
    assert house.rows(Job) == before
    assert frozen.poll() is None


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
