"""Probes: one for plans that need the same, measured once, kept for a day."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import jobs
from app.db import Database
from app.errors import LeaseLost
from app.jobs import Plan, estimates, probes
from app.jobs.probes import KEPT_SECONDS, MOST_WAITING
from app.tables import Probe
from tests.factories import make_dataset

RESULT: dict[str, Any] = {
    "parameters": {"generator": 1000, "discriminator": 900},
    "memory_bytes": 2**28,
    "examples_per_second": 50.0,
    "fingerprint": {"device": "cpu"},
    "worker": "box:1",
    "note": None,
}


def planned(session: Session, **request: Any) -> Plan:
    return jobs.plan(session, dataset=make_dataset(session).id, **({"budget": {"examples": 1000}} | request))


def measured(session: Session, plan: Plan) -> Probe:
    """The plan's probe, asked for, claimed and finished."""
    probes.ask(session, plan)
    probe = probes.claim(session, "box:1")
    assert probe is not None
    probes.finish(session, probe.id, probe.fence, RESULT)
    return probe


def test_plans_that_need_the_same_share_a_probe(any_database: Database) -> None:
    """Seed, budget and the number of examples change nothing; networks, batch and the shape of the images do."""
    with any_database.writing() as session:
        plan = planned(session, preset="fast", seed=1)
        same = [planned(session, preset="fast", seed=2), planned(session, preset="fast", budget={"seconds": 5})]
        other = [
            planned(session, preset="fast", config=config)
            for config in ({"batch_size": 8}, {"network": {"width": 8}}, {"precision": "fp32"})
        ]
        larger = jobs.plan(session, dataset=make_dataset(session, height=16, width=16).id, preset="fast")
    assert {probes.key(each) for each in same} == {probes.key(plan)}
    assert len({probes.key(each) for each in (plan, larger, *other)}) == 5


def test_a_probe_is_measured_once(any_database: Database) -> None:
    """Whoever asks while it waits, runs or is done gets the same one; its request is all that a worker needs."""
    with any_database.writing() as session:
        plan = planned(session)
        first = probes.ask(session, plan)
        assert probes.ask(session, plan) is first
        assert first is not None
        nameless = plan.data.model_dump(mode="json") | {"classes": [str(n) for n in range(len(plan.data.classes))]}
        assert first.request == {"config": plan.config, "data": nameless}
        claimed = probes.claim(session, "box:1")
        assert claimed is first
        assert probes.claim(session, "box:2") is None
        probes.renew(session, first.id, first.fence)
        probes.finish(session, first.id, first.fence, RESULT)
        again = probes.ask(session, plan)
    assert again is first
    assert (first.status, first.result) == ("succeeded", RESULT)


def test_a_failed_probe_is_tried_when_it_is_asked_for_again(any_database: Database) -> None:
    """Not by itself: its reason is told until then, and a late answer of the first run is refused."""
    with any_database.writing() as session:
        plan = planned(session)
        probe = probes.ask(session, plan)
        assert probe is not None
        probes.claim(session, "box:1")
        fence = probe.fence
        probes.fail(session, probe.id, fence, "crashed", "It ended.")
        assert estimates.estimate(session, plan, probe, None).note == "It ended."
        assert probes.claim(session, "box:1") is None
        probes.ask(session, plan)
        assert (probe.status, probe.error) == ("queued", None)
        with pytest.raises(LeaseLost):
            probes.finish(session, probe.id, fence, RESULT)


def test_only_so_many_wait(any_database: Database) -> None:
    """A flood of plans is not measured one by one: beyond a number none is taken in until some are done."""
    with any_database.writing() as session:
        for batch_size in range(1, MOST_WAITING + 1):
            assert probes.ask(session, planned(session, config={"batch_size": batch_size})) is not None
        late = planned(session, config={"batch_size": 100})
        assert probes.ask(session, late) is None
        probes.claim(session, "box:1")
        assert probes.ask(session, late) is not None


def test_lost_and_old_probes_go(any_database: Database) -> None:
    """One whose worker is lost has failed; what was measured a day ago is forgotten, and what runs is not."""
    with any_database.writing() as session:
        plans = [planned(session, config={"batch_size": size}) for size in (1, 2, 3)]
        old = measured(session, plans[0])
        session.get_one(Probe, old.id).finished_at = (old.finished_at or 0) - KEPT_SECONDS - 1
        lost = probes.ask(session, plans[1])
        assert lost is not None
        probes.claim(session, "box:1")
        lost.lease_until = 0.0
        session.flush()
        probes.ask(session, plans[2])
        jobs.sweep(session)
        session.expire_all()
        found = [probes.find(session, plan) for plan in plans]
    assert [probe and probe.status for probe in found] == [None, "failed", "queued"]


def test_an_estimate_is_what_was_measured(any_database: Database) -> None:
    """Speed, size and place are the probe's, and the time to finish follows; a budget in seconds is its own."""
    with any_database.writing() as session:
        plan, timed = planned(session, preset="fast"), planned(session, preset="fast", budget={"seconds": 90})
        assert estimates.estimate(session, plan, None, "Nobody is there.") == estimates.Estimate(
            note="Nobody is there."
        )
        probe = measured(session, plan)
        found = estimates.estimate(session, plan, probe, None)
        of_time = estimates.estimate(session, timed, probe, None)
    assert (found.parameters, found.memory_bytes, found.examples_per_second) == (RESULT["parameters"], 2**28, 50.0)
    assert found.measured == {"worker": "box:1", "fingerprint": {"device": "cpu"}, "at": probe.finished_at}
    assert (found.seconds, of_time.seconds, found.note) == (20.0, 90.0, None)


def test_names_of_classes_are_not_kept(any_database: Database) -> None:
    """A probe needs only how many there are, so plans on other people's classes share it."""
    with any_database.writing() as session:
        one, other = (
            jobs.plan(session, dataset=make_dataset(session, classes=[{"name": n, "count": 9} for n in names]).id)
            for names in (("alice", "bob"), ("carol", "dave"))
        )
        probe = probes.ask(session, one)
        assert probe is not None
        assert probes.ask(session, other) is probe
        assert probe.request["data"]["classes"] == ["0", "1"]
