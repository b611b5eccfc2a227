"""Dry runs over HTTP: the plan at once, and what a worker measures of it while the caller waits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import Client

from app import workers
from app.db import Database
from app.http import dry_runs
from app.jobs import probes
from app.tables import Dataset, Probe
from tests.factories import make_dataset
from tests.servers import wait_until

REQUEST = {"dataset": "digits", "preset": "fast", "budget": {"examples": 6400}, "seed": 1}
RESULT: dict[str, Any] = {
    "parameters": {"generator": 1000, "discriminator": 900},
    "memory_bytes": 2**28,
    "examples_per_second": 64.0,
    "fingerprint": {"device": "cpu", "threads": 1},
    "worker": "box:1",
    "note": "Measured beside a job.",
}


@pytest.fixture
def database(app: FastAPI, client: Client) -> Database:
    """That of the running application, where digits are ready and a worker lives."""
    database: Database = app.state.database
    with database.writing() as session:
        make_dataset(session, name="digits")
        workers.beat(session, worker="box:1", slots=1, busy=0, device="CPU", gpus=0, cores=2)
    return database


def plan(client: Client, **request: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs?dry_run=true", json=REQUEST | request)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def probing(database: Database, result: dict[str, Any] | None = None) -> None:
    """Wait for a probe and end it with this result, or without one."""
    claimed: list[Probe] = []

    def claim() -> bool:
        with database.writing() as session:
            claimed.extend(filter(None, [probes.claim(session, "box:1")]))
        return bool(claimed)

    wait_until(claim)
    probe = claimed[0]
    with database.writing() as session:
        if result is None:
            probes.fail(session, probe.id, probe.fence, "out_of_memory", "It needs more memory.")
        else:
            probes.finish(session, probe.id, probe.fence, result)


def test_what_a_worker_measures_is_in_the_answer(client: Client, database: Database) -> None:
    """Parameters, memory, speed, time to finish and who measured; asked again it is there at once."""
    worker = threading.Thread(target=probing, args=(database, RESULT))
    worker.start()
    answers = [plan(client)]
    worker.join()
    began = time.monotonic()
    answers.append(plan(client, seed=2))
    assert time.monotonic() - began < 5
    for answer in answers:
        assert answer["parameters"] == RESULT["parameters"]
        assert (answer["memory_bytes"], answer["examples_per_second"]) == (2**28, 64.0)
        assert (answer["estimated_seconds"], answer["note"]) == (100.0, "Measured beside a job.")
        assert (answer["measured"]["worker"], answer["measured"]["fingerprint"]) == ("box:1", RESULT["fingerprint"])
        assert answer["measured"]["at"].endswith("Z")
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_probe_that_failed_says_why(client: Client, database: Database) -> None:
    """Its reason is the note, and the plan is there all the same."""
    worker = threading.Thread(target=probing, args=(database,))
    worker.start()
    answer = plan(client)
    worker.join()
    assert (answer["note"], answer["memory_bytes"], answer["examples_total"]) == ("It needs more memory.", None, 6400)


def test_nobody_waits_for_long(client: Client, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no worker comes to it in time the answer says so; what is measured later is kept."""
    monkeypatch.setattr(dry_runs, "WAIT_SECONDS", 0.5)
    answer = plan(client)
    assert (answer["examples_per_second"], answer["note"]) == (None, dry_runs.NOT_YET)
    other = plan(client, config={"network": {"z_dim": 33}})
    assert other["note"] == f"{dry_runs.NOT_YET} {dry_runs.BESIDE.format(1)}"
    probing(database, RESULT)
    assert plan(client)["examples_per_second"] == 64.0


def test_too_many_plans_are_not_measured(client: Client, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of waiting probes the answer comes at once, and says why it has no figures."""
    monkeypatch.setattr(probes, "MOST_WAITING", 0)
    assert plan(client)["note"] == dry_runs.MANY


def test_too_many_who_wait_are_not_kept(client: Client, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of callers the answer comes at once; its probe is asked for all the same."""
    monkeypatch.setattr(dry_runs, "_places", threading.BoundedSemaphore(1))
    with dry_runs._places:
        assert plan(client)["note"] == dry_runs.CROWDED
    worker = threading.Thread(target=probing, args=(database, RESULT))
    worker.start()
    assert plan(client)["examples_per_second"] == 64.0
    worker.join()


def test_a_measurement_is_of_one_process(client: Client, database: Database) -> None:
    """Who wants several is told so."""
    worker = threading.Thread(target=probing, args=(database, RESULT))
    worker.start()
    answer = plan(client, config={"processes": 2})
    worker.join()
    assert "the 2 that share it may go faster" in answer["note"]


def test_those_who_wait_leave_the_service_to_others(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More dry runs than there are threads or connections wait at once, and the service goes on answering."""
    monkeypatch.setattr(dry_runs, "WAIT_SECONDS", 6.0)
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(plan, client) for _ in range(60)]
        time.sleep(1)
        for _ in range(3):
            assert client.get("/v1/jobs", timeout=3).status_code == 200
        answers = [each.result() for each in waiting]
    assert {answer["note"] for answer in answers} == {dry_runs.NOT_YET}
    with database.reading() as session:
        assert session.query(Probe).count() == 1


def test_presets_are_chosen_for_the_workers_that_live(client: Client, database: Database, app: FastAPI) -> None:
    """A GPU among the living workers gives `quality` to who names no preset, with the reason, in a plan and in a job."""
    with database.writing() as session:
        workers.beat(session, worker="gpu:1", slots=1, busy=0, device="1 GPU", gpus=1, cores=8)
        session.query(Dataset).filter_by(name="digits").one().examples = 10_000
    request = {name: value for name, value in REQUEST.items() if name != "preset"}
    job = client.post("/v1/jobs", json=request).json()
    assert (job["preset"], job["chosen_preset"]) == ("auto", "quality")
    assert "a GPU to train on" in job["preset_reason"]
    assert job["config"]["network"]["family"] == "r3gan"


def test_a_running_service_measures(live_service: str) -> None:
    """From outside: the figures come with the first answer, or, from a slow machine, with a later one."""
    request = {"dataset": "digits", "preset": "fast", "budget": {"examples": 10_000}, "seed": 1}
    for _ in range(6):
        answer = httpx.post(f"{live_service}/v1/jobs?dry_run=true", json=request, timeout=60).json()
        if answer["examples_per_second"] is not None:
            break
    assert answer["examples_per_second"] > 1, answer
    assert answer["parameters"]["generator"] > 1000
    assert answer["memory_bytes"] > 2**20
    assert answer["estimated_seconds"] == pytest.approx(10_000 / answer["examples_per_second"], abs=0.1)
    assert answer["measured"]["fingerprint"]["threads"] == 1
