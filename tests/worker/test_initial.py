"""Jobs that begin with a model: what the worker hands the trainer, and what becomes of a model that cannot be read."""

import threading
from typing import Any

import pytest

from app import jobs
from app.jobs import history
from app.tables import Checkpoint, Dataset, Job
from tests.factories import make_job
from tests.servers import wait_until
from worker.service import Service
from worker.training import train_next

CONFIG = {
    "batch_size": 32,
    "network": {"family": "dcgan", "width": 4, "z_dim": 8},
    "schedule": {"tick": 64, "grid": 3200, "checkpoint": 64},
    "evaluation": {"samples": 0},
    "precision": "fp32",
}


def submit(service: Service, dataset: Dataset, **request: Any) -> str:
    asked = {"config": CONFIG, "budget": {"examples": 64}, "preset": "fast"} | request
    with service.database.writing() as session:
        return make_job(session, dataset, request=asked).id


def job_of(service: Service, job_id: str) -> Job:
    with service.database.reading() as session:
        return jobs.get(session, job_id)


def seen(service: Service, job_id: str) -> int:
    """After how many examples its newest checkpoint was made."""
    with service.database.reading() as session:
        return max((row.examples_seen for row in history.checkpoints(session, job_id)), default=0)


def said(service: Service, job_id: str) -> list[dict[str, Any]]:
    """How it began, as far as the trainer says that it did so with a model."""
    with service.database.reading() as session:
        logs = [event.data for event in history.events(session, job_id, kinds=["log"])]
    return [line for line in logs if line["message"].startswith("Starts from")]


@pytest.fixture
def source(service: Service, dataset: Dataset) -> Checkpoint:
    """The only checkpoint of a job that succeeded, published as `digits:1`."""
    job_id = submit(service, dataset, model="digits")
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    with service.database.reading() as session:
        (checkpoint,) = history.checkpoints(session, job_id)
    return checkpoint


@pytest.mark.parametrize("kept", [True, False], ids=["state kept", "state gone"])
def test_a_job_begins_with_a_model(service: Service, dataset: Dataset, source: Checkpoint, kept: bool) -> None:
    """The generator is that model's, and the discriminator too while the training state is still there."""
    if not kept:
        assert source.state_key is not None
        service.storage.delete([source.state_key])
    job_id = submit(service, dataset, initial="digits")
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    (line,) = said(service, job_id)
    assert (line["sha256"], line["discriminator"]) == (source.sha256, kept)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_model_that_cannot_be_read_fails_the_job(
    service: Service, dataset: Dataset, source: Checkpoint, damage: str
) -> None:
    """At once and with a reason that names it: to try again would change nothing."""
    key = f"{source.snapshot_key}/generator.safetensors"
    service.storage.delete([key])
    if damage == "truncated":
        service.storage.put_bytes(key, b"half of it")
    job_id = submit(service, dataset, initial="digits:1")
    assert train_next(service, {})
    job = job_of(service, job_id)
    assert (job.status, job.attempt, job.error and job.error["code"]) == ("failed", 0, "initial")
    assert "digits:1, cannot be used" in (job.error or {})["message"]


def test_a_run_that_goes_on_needs_it_no_more(service: Service, dataset: Dataset, source: Checkpoint) -> None:
    """A job that has a checkpoint of its own goes on from that, whatever became of the model."""
    job_id = submit(service, dataset, initial=source.id, budget={"examples": 64_000})
    stopper = threading.Thread(target=lambda: (wait_until(lambda: seen(service, job_id)), service.stopping.set()))
    stopper.start()
    assert train_next(service, {})
    stopper.join()
    service.stopping.clear()
    service.storage.delete([f"{source.snapshot_key}/generator.safetensors"])
    with service.database.writing() as session:
        jobs.pause(session, job_id)
        jobs.update(session, job_id, budget={"examples": seen(service, job_id) + 64})
        jobs.resume(session, job_id)
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    assert len(said(service, job_id)) == 1
