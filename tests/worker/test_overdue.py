"""A job whose step takes longer than a run has to stop in."""

import threading

import pytest

from app import jobs
from app.tables import Dataset, Job
from tests.factories import make_dataset, make_job
from tests.servers import wait_until
from tests.worker.test_training import events, job_of, submit
from worker import training
from worker.service import Service


@pytest.fixture(autouse=True)
def _stuck(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first step never ends, and it is given half a second for it."""
    monkeypatch.setattr(training, "TRAINER", "tests.worker.stuck_trainer")
    service.settings = service.settings.model_copy(update={"stop_grace_seconds": 0.5})


def deploy(service: Service, job_id: str, run: int) -> Job:
    """The job as it stands after a run in which it trained until its worker was ended."""

    def begun() -> bool:
        return [line["message"] for line in events(service, job_id, "log")].count("started") == run

    threading.Thread(target=lambda: (wait_until(begun), service.stopping.set())).start()
    assert training.train_next(service, {})
    service.stopping.clear()
    return job_of(service, job_id)


def test_deploys_end_a_job_that_cannot_stop_in_time(service: Service, dataset: Dataset) -> None:
    """Each counts as an attempt, and the last of the usual number says what to do about it."""
    job_id = submit(service, dataset)
    job = deploy(service, job_id, run=1)
    assert (job.status, job.attempt) == ("queued", 1)
    with service.database.writing() as session:
        session.get_one(Job, job_id).attempt = service.settings.max_attempts - 1
    job = deploy(service, job_id, run=2)
    assert (job.status, job.attempt) == ("failed", service.settings.max_attempts)
    assert job.error is not None
    assert job.error["code"] == "step_too_long"
    assert "One step takes longer than the 0.5 seconds" in job.error["message"]
    assert "smaller batch_size or network" in job.error["message"]


@pytest.mark.parametrize(("behind", "next_one"), [(True, "second"), (False, "first")])
def test_it_gives_way_all_the_same(service: Service, behind: bool, next_one: str) -> None:
    """One that was ended because its turn was over goes behind those that waited; else it keeps its place."""
    with service.database.writing() as session:
        dataset = make_dataset(session)
        named = {make_job(session, dataset, queued_at=at).id: name for at, name in ((1.0, "first"), (2.0, "second"))}
        job = jobs.claim(session, "host:1")
        assert job is not None
        jobs.crashed(session, job.id, job.fence, "step_too_long", "It took too long.", behind=behind)
        job = jobs.claim(session, "host:1")
        assert job is not None
        assert named[job.id] == next_one
