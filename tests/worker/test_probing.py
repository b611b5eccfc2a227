"""A worker that measures plans while somebody waits."""

import threading
from typing import Any

import pytest

from app import jobs
from app.jobs import probes
from app.tables import Probe
from models.machine import spare_memory
from tests.factories import make_dataset
from tests.servers import wait_until
from worker import probing
from worker.probing import probe_next
from worker.service import Service

SMALL = {"batch_size": 8, "network": {"family": "dcgan", "width": 4}}


def ask(service: Service, **config: Any) -> str:
    with service.database.writing() as session:
        plan = jobs.plan(session, dataset=make_dataset(session).id, preset="fast", config=SMALL | config)
        probe = probes.ask(session, plan)
    assert probe is not None
    return probe.id


def probe_of(service: Service, probe_id: str) -> Probe:
    with service.database.reading() as session:
        return session.get_one(Probe, probe_id)


def test_nothing_waits(service: Service) -> None:
    """Without a queued probe there is nothing to do."""
    assert probe_next(service, {}) is False


def test_worker_that_ends_takes_nothing(service: Service) -> None:
    """A worker that is to end claims no probe."""
    probe_id = ask(service)
    service.stopping.set()
    assert probe_next(service, {}) is False
    assert probe_of(service, probe_id).fence == 0


def test_a_worker_that_ends_does_not_wait_for_a_long_step(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probe goes back, for another worker."""
    monkeypatch.setattr(probing, "PROBE", "tests.worker.stuck_probe")
    monkeypatch.setattr(probing, "GRACE_SECONDS", 0.2)
    probe_id = ask(service)
    worker = threading.Thread(target=probe_next, args=(service, {}))
    worker.start()
    wait_until(lambda: any(path.stat().st_size for path in service.runs.glob("*/*/events.jsonl")), seconds=60)
    service.stopping.set()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert probe_of(service, probe_id).status == "queued"


def test_a_plan_is_measured(service: Service) -> None:
    """A real probe leaves its figures and who measured them, and its directory is gone."""
    probe_id = ask(service)
    assert probe_next(service, {})
    probe = probe_of(service, probe_id)
    assert (probe.status, probe.error) == ("succeeded", None)
    assert probe.result is not None
    assert probe.result["examples_per_second"] > 1
    assert probe.result["memory_bytes"] > 2**20
    assert (probe.result["worker"], probe.result["note"]) == (service.name, None)
    assert list(service.runs.iterdir()) == []


def test_beside_training_it_takes_one_thread_and_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few cores a probe beside a running job keeps to one thread, whatever the plan asks for, and its note says what that means."""
    monkeypatch.setattr(probing, "available_cores", lambda: 2)
    probe_id = ask(service, threads=2)

    def beside(environment: Any) -> bool:
        assert probe_next(service, environment)
        return False

    service.training.work(beside)
    result = probe_of(service, probe_id).result
    assert result is not None
    assert result["fingerprint"]["threads"] == 1
    assert "one thread" in result["note"]


@pytest.mark.parametrize(
    ("config", "share", "code", "says"),
    [
        ({}, 1e-4, None, "ended early"),
        (
            {"network": {"family": "dcgan", "width": 512, "max_width": 2048}, "batch_size": 64},
            None,
            "out_of_memory",
            "needs more memory than the worker",
        ),
    ],
)
def test_a_probe_that_fails_says_why(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    share: float | None,
    code: str | None,
    says: str,
) -> None:
    """One that dies, and one that needs more memory than there is to spare, end with a reason; neither is tried again by itself."""
    spare = spare_memory()
    assert spare is not None
    monkeypatch.setattr(probing, "MEMORY_SHARE", share or 2**29 / spare)
    probe_id = ask(service, **config)
    assert probe_next(service, {})
    probe = probe_of(service, probe_id)
    assert probe.status == "failed"
    assert probe.error is not None
    assert says in probe.error["message"]
    assert code is None or probe.error["code"] == code
    assert probe_next(service, {}) is False


def test_a_probe_that_takes_too_long_is_ended(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and is not tried again for a while: each try would hold a worker as long."""
    monkeypatch.setattr(probing, "LONGEST_SECONDS", 0.05)
    probe_id = ask(service)
    assert probe_next(service, {})
    probe = probe_of(service, probe_id)
    assert (probe.status, probe.error and probe.error["code"]) == ("failed", probes.TOO_SLOW)
    assert list(service.runs.iterdir()) == []
    with service.database.writing() as session:
        plan = jobs.plan(session, dataset=make_dataset(session).id, preset="fast", config=SMALL)
        again = probes.ask(session, plan)
        assert again is not None
        assert (again.id, again.status) == (probe_id, "failed")
        again.finished_at = (again.finished_at or 0) - probes.TOO_SLOW_SECONDS
        later = probes.ask(session, plan)
        assert later is not None
        assert later.status == "queued"
