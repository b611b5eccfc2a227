"""Leases: who gets a row, who may write to it, and what becomes of it when its worker is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import leases
from app.db import Database, clock
from app.errors import LeaseLost
from app.tables import Dataset, Job
from tests.factories import make_dataset, make_job

CLAIMER = Path(__file__).with_name("claimer.py")
HOUSE = Path(__file__).resolve().parents[2]


def queued(session: Session, **columns: object) -> Dataset:
    return make_dataset(session, **({"status": "queued"} | columns))


def test_claims_go_by_priority_then_age(any_database: Database) -> None:
    """The highest priority goes first, and within it what waits longest; then there is nothing to claim."""
    with any_database.writing() as session:
        for name, priority, queued_at in (
            ("late", 0, 30.0),
            ("urgent", 5, 40.0),
            ("early", 0, 20.0),
            ("idle", -1, 10.0),
        ):
            queued(session, name=name, priority=priority).queued_at = queued_at
    order = []
    for _ in range(5):
        with any_database.writing() as session:
            row = leases.claim(session, Dataset, "w")
            order.append(row and row.name)
    assert order == ["urgent", "early", "late", "idle", None]


def test_claim_raises_the_fence_and_starts_a_lease(any_database: Database) -> None:
    """A claimed row runs under a new fence, with the worker's name and a lease of the set length."""
    with any_database.writing() as session:
        dataset_id = queued(session, fence=6).id
    with any_database.writing() as session:
        row = leases.claim(session, Dataset, "host:1")
        assert row is not None
        assert (row.id, row.status, row.fence, row.worker) == (dataset_id, "running", 7, "host:1")
        assert row.lease_until == pytest.approx(clock(session) + any_database.settings.lease_seconds, abs=1)


def test_renew_extends_the_lease(any_database: Database) -> None:
    """A renewed lease counts from now."""
    with any_database.writing() as session:
        row = queued(session, status="running", fence=3, lease_until=0.0)
        assert leases.renew(session, Dataset, row.id, 3).lease_until > clock(session)


@pytest.mark.parametrize("write", [leases.renew, leases.held, lambda *a: leases.finish(*a, status="succeeded")])
@pytest.mark.parametrize(("status", "fence"), [("running", 4), ("running", 2), ("queued", 3), ("succeeded", 3)])
def test_another_fence_is_refused(
    any_database: Database, write: Callable[..., Dataset], status: str, fence: int
) -> None:
    """Whoever does not hold the row under its present fence gets LeaseLost, and the row stays as it was."""
    with any_database.writing() as session:
        row_id = queued(session, status=status, fence=fence, lease_until=1.0).id
    with pytest.raises(LeaseLost), any_database.writing() as session:
        write(session, Dataset, row_id, 3)
    with any_database.reading() as session:
        row = session.get_one(Dataset, row_id)
        assert (row.status, row.fence, row.lease_until) == (status, fence, 1.0)


def test_finish_lets_go(any_database: Database) -> None:
    """A finished row has its status and columns, and no worker or lease."""
    with any_database.writing() as session:
        row = queued(session, status="running", fence=1, worker="w", lease_until=9e9, rung_at=1.0)
        leases.finish(session, Dataset, row.id, 1, status="failed", error={"code": "x", "message": "y"})
        assert (row.status, row.error, row.worker, row.lease_until) == (
            "failed",
            {"code": "x", "message": "y"},
            None,
            None,
        )


def test_only_lapsed_leases_expire(any_database: Database) -> None:
    """A running row whose lease is over is taken from its worker; others stay as they are."""
    with any_database.writing() as session:
        lost = queued(session, status="running", fence=2, attempt=1, lease_until=1.0).id
        queued(session, status="running", fence=2, lease_until=9e9)
        queued(session, status="succeeded", fence=2, lease_until=1.0)
        assert [(row.id, row.fence, row.attempt) for row in leases.expire(session, Dataset)] == [(lost, 3, 2)]
        assert leases.expire(session, Dataset) == []


def test_many_sweeps_expire_a_row_once(any_database: Database) -> None:
    """Of five threads that look for lost rows at once, one gets each row."""
    with any_database.writing() as session:
        lost = {queued(session, status="running", fence=1, lease_until=1.0).id for _ in range(20)}

    def expire(_: int) -> list[str]:
        with any_database.writing() as session:
            return [row.id for row in leases.expire(session, Dataset)]

    with ThreadPoolExecutor(5) as pool:
        taken = [row_id for ids in pool.map(expire, range(5)) for row_id in ids]
    assert sorted(taken) == sorted(lost)
    with any_database.reading() as session:
        assert {(row.fence, row.attempt) for row in session.scalars(select(Dataset))} == {(2, 1)}


@pytest.mark.parametrize(
    ("desired", "attempt", "status"),
    [("run", 2, "queued"), ("run", 3, "failed"), ("pause", 3, "paused"), ("cancel", 1, "cancelled")],
)
def test_a_lost_row_goes_where_its_user_wished(database: Database, desired: str, attempt: int, status: str) -> None:
    """A wish to pause or cancel is granted; else the row runs again until the third attempt is lost."""
    with database.writing() as session:
        assert leases.after_loss(session, queued(session, desired=desired, attempt=attempt)) == status


def test_a_waiting_row_is_rung_for_once(any_database: Database) -> None:
    """Five threads that ask at once ring once for each queued row, and again only after `ring_seconds`."""
    with any_database.writing() as session:
        rows = [queued(session).id for _ in range(3)]
        queued(session, status="running")

    def ring(_: int) -> int:
        with any_database.writing() as session:
            return leases.to_ring(session, Dataset)

    with ThreadPoolExecutor(5) as pool:
        assert sum(pool.map(ring, range(5))) == 3
    assert ring(0) == 0
    with any_database.writing() as session:
        session.get_one(Dataset, rows[0]).rung_at -= any_database.settings.ring_seconds + 0.1
    assert ring(0) == 1


def test_processes_never_claim_one_row_twice(any_database: Database) -> None:
    """Three real processes that claim at once share 40 jobs: each job goes to one of them, once."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        wanted = {make_job(session, dataset).id for _ in range(40)}
    command = [sys.executable, CLAIMER, any_database.settings.database_url, any_database.settings.data_dir]
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    workers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 3
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    claims = [worker.communicate(timeout=60)[0].split("\n")[:-1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3
    every = [claim.split() for lines in claims for claim in lines]
    assert sorted(job_id for job_id, _ in every) == sorted(wanted)
    assert {fence for _, fence in every} == {"1"}
    with any_database.reading() as session:
        assert leases.waiting(session, Job) == 0
