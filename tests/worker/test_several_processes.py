"""Jobs of the service on several processes: gloo on this machine's cores stands for GPUs."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from app.tables import Dataset, Job
from tests.servers import wait_until
from tests.worker.test_training import CONFIG, LONG, events, job_of, seen, stop_after, submit
from worker.service import Service
from worker.training import train_next

TWO = {"processes": 2, "threads": 2}


def on_two(**request: Any) -> dict[str, Any]:
    return request | {"config": request.get("config", CONFIG) | TWO}


def ranks() -> list[int]:
    """The process ids of the trainers under the launcher that this process started, the first rank first."""
    return [rank for launcher in _children(os.getpid(), "worker.trainer.launcher") for rank in _children(launcher)]


def _children(parent: int, module: str = "worker.trainer") -> list[int]:
    pids = [
        int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in sorted(pids) if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


def test_job_of_two_processes_is_trained(service: Service, dataset: Dataset) -> None:
    """It succeeds, and says how many processes and threads each of them has."""
    job_id = submit(service, dataset, **on_two())
    assert train_next(service, {})
    job = job_of(service, job_id)
    assert job.status == "succeeded"
    assert job.fingerprint is not None
    assert (job.fingerprint["processes"], job.fingerprint["threads"]) == (2, 1)
    assert seen(service, job_id) == 192
    assert list(service.runs.iterdir()) == []


@pytest.mark.slow
def test_job_of_two_processes_stops_and_goes_on(service: Service, dataset: Dataset) -> None:
    """It goes on where it stopped, exactly with as many processes, and with another number not without a warning."""
    job_id = submit(service, dataset, **on_two(**LONG))
    stop_after(service, job_id, 640)
    stopped_at = seen(service, job_id)
    job = job_of(service, job_id)
    assert (job.status, job.attempt, job.progress["examples_seen"]) == ("queued", 0, stopped_at)
    stop_after(service, job_id, stopped_at + 640)
    assert [line["resumed"] for line in events(service, job_id, "log")] == [False, True]
    assert events(service, job_id, "warning") == []
    with service.database.writing() as session:
        row = session.get_one(Job, job_id)
        row.config = row.config | {"processes": 1, "threads": 1}
    assert train_next(service, {})
    assert job_of(service, job_id).status == "succeeded"
    (warning,) = events(service, job_id, "warning")
    assert warning["code"] == "engine_changed"
    assert (warning["before"]["processes"], "processes" in warning["now"]) == (2, False)


def test_job_whose_process_is_killed_is_tried_again(service: Service, dataset: Dataset) -> None:
    """The death of one process is a crash of the run: none of them is left, and the job waits for its next attempt."""
    job_id = submit(service, dataset, **on_two(**LONG))
    found: list[int] = []

    def kill_the_second() -> None:
        wait_until(lambda: seen(service, job_id) >= 640, seconds=60)
        found.extend(ranks())
        os.kill(found[1], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    assert train_next(service, {})
    killer.join()
    job = job_of(service, job_id)
    assert (job.status, job.attempt) == ("queued", 1)
    assert len(found) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
