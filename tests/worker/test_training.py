import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import jobs
from app.db import Database
from app.errors import Unavailable
from app.jobs import history
from app.tables import Dataset, Job
from tests.factories import make_job
from tests.servers import wait_until
from worker.service import Service
from worker.training import train_next

pytestmark = pytest.mark.alone

CONFIG = {
    "batch_size": 32,
    "network": {"family": "dcgan", "width": 8},
    "schedule": {"tick": 64, "grid": 64, "checkpoint": 64},
}
LONG = {"config": CONFIG | {"schedule": {"tick": 640, "grid": 3200, "checkpoint": 640}}, "budget": {"examples": 9600}}


def submit(service: Service, dataset: Dataset, **request: Any) -> str:
    with service.database.writing() as session:
        return make_job(session, dataset, request={"config": CONFIG, "budget": {"examples": 192}} | request).id


def job_of(service: Service, job_id: str) -> Job:
    with service.database.reading() as session:
        return jobs.get(session, job_id)


def events(service: Service, job_id: str, kind: str) -> list[dict[str, Any]]:
    with service.database.reading() as session:
        return [row.data for row in history.events(session, job_id, kinds=[kind])]


def stop_after(service: Service, job_id: str, examples: int) -> None:
    """Train until a checkpoint after so many examples is recorded, then have this worker end."""
    threading.Thread(
        target=lambda: (wait_until(lambda: seen(service, job_id) >= examples, seconds=90), service.stopping.set())
    ).start()
    assert train_next(service, {})
    service.stopping.clear()


def seen(service: Service, job_id: str) -> int:
    with service.database.reading() as session:
        return max((row.examples_seen for row in history.checkpoints(session, job_id)), default=0)


def test_nothing_waits(service: Service) -> None:
    """Without a queued job there is nothing to do."""
    assert train_next(service, {}) is False


def test_worker_that_ends_takes_nothing(service: Service, dataset: Dataset) -> None:
    """A worker that is to end claims no job."""
    job_id = submit(service, dataset)
    service.stopping.set()
    assert train_next(service, {}) is False
    assert job_of(service, job_id).fence == 0


def test_job_is_trained(service: Service, dataset: Dataset) -> None:
    """A job leaves metrics, grids, snapshots, the newest training state and a published model; its directory is gone."""
    job_id = submit(service, dataset)
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    with service.database.reading() as session:
        ticks = history.metrics(session, job_id, ["loss_g"])["examples_seen"]
        grids = [row.data["key"] for row in history.grids(session, job_id)]
        checkpoints = history.checkpoints(session, job_id)
    assert ticks == [64, 128, 192]
    assert grids == [f"jobs/{job_id}/1/grids/{examples:012d}.png" for examples in (0, 64, 128, 192)]
    assert service.storage.get_bytes(grids[0]).startswith(b"\x89PNG")
    assert [(row.examples_seen, row.state_key is not None) for row in checkpoints] == [
        (192, True),
        (128, False),
        (64, False),
    ]
    for row in checkpoints:
        weights = service.storage.get_bytes(f"{row.snapshot_key}/generator.safetensors")
        assert (hashlib.sha256(weights).hexdigest(), len(weights)) == (row.sha256, row.size)
    stored = [key for key in service.storage.list(f"jobs/{job_id}") if key.endswith("state.pt")]
    assert stored == [checkpoints[0].state_key]
    assert list(service.runs.iterdir()) == []


def test_stopped_job_goes_back_and_goes_on(service: Service, dataset: Dataset) -> None:
    """A job whose worker ends is queued again with its checkpoint, and the next run starts there."""
    job_id = submit(service, dataset, **LONG)
    stop_after(service, job_id, 640)
    stopped_at = seen(service, job_id)
    job = job_of(service, job_id)
    assert (job.status, job.attempt, job.progress["examples_seen"]) == ("queued", 0, stopped_at)
    stop_after(service, job_id, stopped_at + 640)
    started = [line["resumed"] for line in events(service, job_id, "log")]
    assert started == [False, True]


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_checkpoint_is_left_out(service: Service, dataset: Dataset, damage: str) -> None:
    """A checkpoint that cannot be read costs what it held, with a warning, and not the job."""
    job_id = submit(service, dataset, **LONG)
    stop_after(service, job_id, 640)
    with service.database.reading() as session:
        newest = history.checkpoints(session, job_id)[0]
    assert newest.state_key is not None
    service.storage.delete([newest.state_key])
    if damage == "truncated":
        service.storage.put_bytes(newest.state_key, b"PK half of it")
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    (warning,) = events(service, job_id, "warning")
    assert warning["code"] == "checkpoint_unusable"


def test_lost_data_fails_the_job_with_a_reason(service: Service, dataset: Dataset) -> None:
    """A job whose data set's files are gone says so, at once or after its attempts."""
    job_id = submit(service, dataset)
    service.storage.delete_prefix(dataset.key or "")
    while train_next(service, {}):
        pass
    job = job_of(service, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert "prepared data" in job.error["message"]


@contextmanager
def on_one_core() -> Iterator[None]:
    """This thread, and the processes that it starts, have one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def with_threads(service: Service, threads: int | None) -> None:
    service.settings = service.settings.model_copy(update={"trainer_threads": threads})


def test_job_goes_on_where_there_are_fewer_cores(service: Service, dataset: Dataset) -> None:
    """A job that asked for no number of threads takes what a smaller machine has, with a warning, and ends there."""
    job_id = submit(service, dataset, **LONG)
    with_threads(service, 2)
    stop_after(service, job_id, 640)
    with_threads(service, None)
    with on_one_core():
        assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    (warning,) = events(service, job_id, "warning")
    assert warning["code"] == "engine_changed"
    assert (warning["before"]["threads"], warning["now"]["threads"]) == (2, 1)


def test_threads_that_a_user_asked_for_are_not_taken_away(service: Service, dataset: Dataset) -> None:
    """A number that was asked for fails the job on a machine that has fewer cores, with a reason."""
    job_id = submit(service, dataset, config=CONFIG | {"threads": 2})
    with on_one_core():
        assert train_next(service, {})
    job = job_of(service, job_id)
    assert (job.status, job.error and job.error["code"]) == ("failed", "config")
    assert "2 threads on a machine of 1 cores" in (job.error or {})["message"]


class Flickering(Database):
    """A database that answers every other reading transaction."""

    asked = 0

    @contextmanager
    def reading(self) -> Iterator[Session]:
        self.asked += 1
        if self.asked % 2:
            raise Unavailable("away for a moment")
        with super().reading() as session:
            yield session


def test_database_that_is_away_for_a_moment_costs_no_run(service: Service, dataset: Dataset) -> None:
    """A run that cannot read its data set's row or its checkpoints at once tries again, and is not given back for that."""
    job_id = submit(service, dataset)
    with closing(Flickering(service.settings)) as database:
        service.database = database
        assert train_next(service, {})
        assert database.asked >= 4
    with closing(Database(service.settings)) as database, database.reading() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.fence) == ("succeeded", 1)
