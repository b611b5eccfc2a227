"""The life of jobs as a state machine: any order of what users, workers and sweeps do, against a model of what should come."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import jobs
from app.db import Database
from app.errors import InvalidState, LeaseLost
from app.jobs import NewEvent, Order
from app.tables import Event, Job
from tests.factories import make_dataset

MAX_ATTEMPTS = 3
ENDED = {"succeeded", "failed", "cancelled"}
VERBS = ["cancel", "pause", "resume", "retry"]
RELEASED = {"run": "queued", "pause": "paused", "cancel": "cancelled"}


@dataclass
class Model:
    """What a job should look like."""

    status: str = "queued"
    desired: str = "run"
    fence: int = 0
    attempt: int = 0
    newest: int = 0  # examples of the newest checkpoint that a run can go on from
    snapshot: int = 0  # examples of the newest checkpoint of any kind
    began: int = 0  # examples at which the present claim began
    lapsed: bool = False
    fences: list[int] = field(default_factory=lambda: [0])  # every value seen, in time

    def to(self, status: str, desired: str = "run") -> None:
        self.status, self.desired, self.lapsed = status, desired, False

    def allows(self, verb: str) -> bool:
        return {
            "cancel": self.status not in {"succeeded", "failed"},
            "pause": self.status not in ENDED and self.desired != "cancel",
            "resume": self.status not in ENDED and self.desired != "cancel",
            "retry": self.status in {"failed", "cancelled"} or (self.desired == "run" and self.status != "succeeded"),
        }[verb]

    @property
    def useful_verbs(self) -> list[str]:
        """Those that are allowed and change something."""
        useless = {"run": {"resume", "retry"}, "pause": {"pause"}, "cancel": {"cancel"}}[self.desired]
        return [verb for verb in VERBS if self.allows(verb) and (self.status == "failed" or verb not in useless)]

    def wish(self, verb: str) -> None:
        """What an allowed verb makes of the job."""
        desired = {"cancel": "cancel", "pause": "pause"}.get(verb, "run")
        if self.status == "running":
            self.desired = desired
        elif self.status != "queued" or desired != "run":
            self.attempt = self.attempt if desired != "run" else 0
            self.to(RELEASED[desired], desired)

    def released(self) -> None:
        self.to(RELEASED[self.desired], self.desired)

    def lost(self) -> None:
        self.attempt += 1
        if self.desired == "run" and self.attempt >= MAX_ATTEMPTS:
            self.to("failed")
        else:
            self.released()


class JobLifecycle(RuleBasedStateMachine):
    """Users, workers and sweeps, each at any moment; a worker may be late by any number of claims."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.models: dict[str, Model] = {}
        self.claims: list[tuple[str, int]] = []
        with database.writing() as session:
            for table in ("model_versions", "jobs", "datasets"):
                session.execute(text(f"DELETE FROM {table}"))
            self.dataset_id = make_dataset(session).id

    @initialize()
    def begin(self) -> None:
        self.submit(0)

    @precondition(lambda self: len(self.models) < 3)
    @rule(priority=st.integers(-1, 1))
    def another_job(self, priority: int) -> None:
        self.submit(priority)

    def submit(self, priority: int) -> None:
        with self.database.writing() as session:
            job = jobs.submit(session, dataset=self.dataset_id, priority=priority, budget={"examples": 640})
        self.models[job.id] = Model()

    @rule(data=st.data(), sensible=st.booleans())
    def user_acts(self, data: st.DataObject, sensible: bool) -> None:
        job_id = data.draw(st.sampled_from(list(self.models)))
        model = self.models[job_id]
        name = data.draw(st.sampled_from(model.useful_verbs if sensible and model.useful_verbs else VERBS))
        allowed = model.allows(name)
        with contextlib.nullcontext() if allowed else pytest.raises(InvalidState), self.database.writing() as session:
            getattr(jobs, name)(session, job_id)
        if allowed:
            model.wish(name)

    @rule()
    def claim(self) -> None:
        with self.database.writing() as session:
            queued = session.scalars(select(Job).where(Job.status == "queued")).all()
            best = min(queued, key=lambda job: (-job.priority, job.queued_at, job.id), default=None)
            job = jobs.claim(session, "worker")
            assert job is best
        if job is None:
            assert not [model for model in self.models.values() if model.status == "queued"]
            return
        model = self.models[job.id]
        model.to("running")
        model.fence += 1
        model.began = model.newest
        assert job.claimed_examples == model.began
        self.claims.append((job.id, job.fence))

    @property
    def running(self) -> list[str]:
        return [job_id for job_id, model in self.models.items() if model.status == "running"]

    def write(self, data: st.DataObject, write: Callable[..., Any], *arguments: Any) -> tuple[Model, Any] | None:
        """Write for a claim that runs, or now and then for one that may be over; None when refused, as it then is."""
        late = bool(self.claims) and data.draw(st.sampled_from([False, False, False, True]))
        if not late and not self.running:
            self.claim()
        claims = [(job_id, self.models[job_id].fence) for job_id in self.running]
        if late or not claims:
            claims = self.claims
        if not claims:
            return None
        job_id, fence = data.draw(st.sampled_from(claims))
        model = self.models[job_id]
        mine = model.status == "running" and model.fence == fence
        with contextlib.nullcontext() if mine else pytest.raises(LeaseLost), self.database.writing() as session:
            return model, write(session, job_id, fence, *arguments)
        return None

    @rule(data=st.data(), seen=st.integers(0, 1))
    def worker_reports(self, data: st.DataObject, seen: int) -> None:
        events = [NewEvent("metrics", {"loss_g": 1.0}, seen), NewEvent("log", {"message": "x"}, seen)]
        self.write(data, jobs.report, events)
        renewed = self.write(data, jobs.renew)
        if renewed is not None:
            model, order = renewed
            model.lapsed = False
            wished = {"pause": {Order.PAUSE}, "cancel": {Order.CANCEL}}
            assert order in wished.get(model.desired, {Order.CONTINUE, Order.YIELD})

    @rule(data=st.data(), further=st.integers(0, 1), ends=st.booleans())
    def worker_checkpoints(self, data: st.DataObject, further: int, ends: bool) -> None:
        def checkpoint(session: Session, job_id: str, fence: int) -> None:
            seen = self.models[job_id].newest + further
            new = jobs.NewCheckpoint(seen, f"state/{fence}/{seen}", f"snapshot/{fence}/{seen}", "c" * 64, 1)
            jobs.record_checkpoint(session, job_id, fence, new)
            if ends and seen > 2:
                jobs.succeed(session, job_id, fence)

        written = self.write(data, checkpoint)
        if written is not None:
            model, _ = written
            model.newest += further
            if model.newest > model.began:
                model.attempt = 0
            if ends and model.newest > 2:
                model.to("succeeded")

    @rule(data=st.data())
    def worker_stores_a_snapshot(self, data: st.DataObject) -> None:
        """A checkpoint without its training state, further on than all before: nobody can go on from it."""

        def snapshot(session: Session, job_id: str, fence: int) -> None:
            model = self.models[job_id]
            seen = max(model.newest, model.snapshot) + 1
            new = jobs.NewCheckpoint(seen, None, f"snapshot/{fence}/{seen}", "c" * 64, 1)
            jobs.record_checkpoint(session, job_id, fence, new)

        written = self.write(data, snapshot)
        if written is not None:
            model, _ = written
            model.snapshot = max(model.newest, model.snapshot) + 1

    @rule(data=st.data(), reason=st.sampled_from(["yield", "deploy"]))
    def worker_lets_go(self, data: st.DataObject, reason: str) -> None:
        written = self.write(data, jobs.release, reason)
        if written is not None:
            written[0].released()

    @rule(data=st.data(), end=st.sampled_from(["crashed", "crashed", "fail"]))
    def trainer_dies(self, data: st.DataObject, end: str) -> None:
        written = self.write(data, getattr(jobs, end), "code", "It ended.")
        if written is not None:
            model, _ = written
            model.lost() if end == "crashed" else model.to("failed")

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def worker_is_lost(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self.running))
        with self.database.writing() as session:
            session.get_one(Job, job_id).lease_until = 0.0
        self.models[job_id].lapsed = True
        if data.draw(st.booleans()):
            self.sweep()

    @rule()
    def sweep(self) -> None:
        with self.database.writing() as session:
            moved = jobs.sweep(session).moved
        lapsed = [job_id for job_id, model in self.models.items() if model.lapsed]
        assert sorted(moved) == sorted(lapsed)
        for job_id in lapsed:
            self.models[job_id].fence += 1
            self.models[job_id].lost()

    @invariant()
    def rows_are_as_modelled(self) -> None:
        with self.database.reading() as session:
            for job in session.scalars(select(Job)):
                model = self.models[job.id]
                assert (job.status, job.desired, job.fence, job.attempt) == (
                    model.status,
                    model.desired,
                    model.fence,
                    model.attempt,
                )
                assert job.fence >= model.fences[-1]
                model.fences.append(job.fence)
                assert (job.worker is not None) == (job.lease_until is not None) == (job.status == "running")
                assert (job.error is not None) == (job.status == "failed")
                assert (job.finished_at is not None) == (job.status in ENDED)

    @invariant()
    def history_is_in_order(self) -> None:
        with self.database.reading() as session:
            for job in session.scalars(select(Job)):
                events = session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.seq)).all()
                assert events[-1].seq == job.last_seq
                statuses = [event.data["status"] for event in events if event.kind == "status"]
                assert statuses[-1] == job.status
                ticks = [event.examples_seen for event in events if event.kind == "metrics"]
                assert len(ticks) == len(set(ticks))


@pytest.mark.timeout(600)  # a failure is shrunk for up to five minutes
def test_any_order_of_events(any_database: Database) -> None:
    """Whatever users, workers and sweeps do in whatever order, each job is where the model says, and late writes are refused."""
    # A lease ends when the machine says so, however slow this one is. PostgreSQL is several times slower, over its socket.
    patient = any_database.settings.model_copy(update={"lease_seconds": 3600.0})
    examples = 80 if any_database.engine.dialect.name == "sqlite" else 20
    with contextlib.closing(Database(patient)) as database:
        run_state_machine_as_test(
            lambda: JobLifecycle(database),
            settings=settings(
                max_examples=examples, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
            ),
        )
