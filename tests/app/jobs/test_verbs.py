"""What users may do with a job in each state."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app import jobs, registry
from app.db import Database
from app.errors import Gone, InvalidState, NotFound
from app.jobs import history
from app.jobs.lifecycle import TRANSITIONS
from app.tables import Checkpoint, Event, Job
from tests.factories import claimed, make_checkpoint, make_dataset, make_job, make_job_in

VERBS: dict[str, Callable[..., Job]] = {
    "cancel": jobs.cancel,
    "pause": jobs.pause,
    "resume": jobs.resume,
    "retry": jobs.retry,
}
# What each verb makes of each (status, desired): the next (status, desired), or None for a refusal.
Next = tuple[str, str] | None
TABLE: dict[tuple[str, str], dict[str, Next]] = {
    ("queued", "run"): {
        "cancel": ("cancelled", "cancel"),
        "pause": ("paused", "pause"),
        "resume": ("queued", "run"),
        "retry": ("queued", "run"),
    },
    ("running", "run"): {
        "cancel": ("running", "cancel"),
        "pause": ("running", "pause"),
        "resume": ("running", "run"),
        "retry": ("running", "run"),
    },
    ("running", "pause"): {
        "cancel": ("running", "cancel"),
        "pause": ("running", "pause"),
        "resume": ("running", "run"),
        "retry": None,
    },
    ("running", "cancel"): {"cancel": ("running", "cancel"), "pause": None, "resume": None, "retry": None},
    ("paused", "pause"): {
        "cancel": ("cancelled", "cancel"),
        "pause": ("paused", "pause"),
        "resume": ("queued", "run"),
        "retry": None,
    },
    ("succeeded", "run"): {"cancel": None, "pause": None, "resume": None, "retry": None},
    ("failed", "run"): {"cancel": None, "pause": None, "resume": None, "retry": ("queued", "run")},
    ("cancelled", "cancel"): {
        "cancel": ("cancelled", "cancel"),
        "pause": None,
        "resume": None,
        "retry": ("queued", "run"),
    },
}
CASES = [(*state, verb, after) for state, verbs in TABLE.items() for verb, after in verbs.items()]


@pytest.mark.parametrize(("status", "desired", "verb", "after"), CASES)
def test_each_verb_in_each_state(any_database: Database, status: str, desired: str, verb: str, after: Next) -> None:
    """A verb does what the table says, twice the same, or is refused with the state and changes nothing."""
    with any_database.writing() as session:
        job = make_job_in(session, status)
        job.desired = desired
    for _ in range(2):
        if after is None:
            with pytest.raises(InvalidState) as refused, any_database.writing() as session:
                VERBS[verb](session, job.id)
            assert refused.value.state == status
        else:
            with any_database.writing() as session:
                VERBS[verb](session, job.id)
        with any_database.reading() as session:
            found = session.get_one(Job, job.id)
            assert (found.status, found.desired) == (after or (status, desired))


def test_the_table_knows_every_state() -> None:
    """The cases above cover each state that a job can be in."""
    assert {status for status, _ in TABLE} == set(TRANSITIONS)


@pytest.mark.parametrize("verb", [*VERBS.values(), jobs.update, jobs.delete, jobs.get])
def test_an_unknown_job_is_not_found(database: Database, verb: Callable[..., object]) -> None:
    """Every verb on a job that nobody made is NotFound."""
    with pytest.raises(NotFound), database.writing() as session:
        verb(session, "job_0")


def test_each_change_is_in_the_history_once(any_database: Database) -> None:
    """A verb writes a status event with the reason, and repeating it writes none."""
    with any_database.writing() as session:
        job = make_job(session)
        for verb in (jobs.pause, jobs.pause, jobs.resume, jobs.cancel, jobs.cancel, jobs.retry):
            verb(session, job.id)
        claimed(session, job)
        for verb in (jobs.pause, jobs.pause, jobs.resume, jobs.cancel):
            verb(session, job.id)
        events = [event.data for event in history.events(session, job.id)]
    assert [(event["reason"], event["status"], event["desired"]) for event in events] == [
        ("submitted", "queued", "run"),
        ("pause", "paused", "pause"),
        ("resume", "queued", "run"),
        ("cancel", "cancelled", "cancel"),
        ("retry", "queued", "run"),
        ("claimed", "running", "run"),
        ("pause", "running", "pause"),
        ("resume", "running", "run"),
        ("cancel", "running", "cancel"),
    ]


def test_retry_starts_over_from_the_newest_checkpoint(any_database: Database) -> None:
    """A retried job has its id, no error, no attempts, the back of the queue, and begins at its newest checkpoint."""
    with any_database.writing() as session:
        job = make_job_in(session, "failed")
        job.attempt = 3
        make_checkpoint(session, job, 320)
        other = make_job(session)
    with any_database.writing() as session:
        job = jobs.retry(session, job.id)
        assert (job.status, job.error, job.attempt, job.finished_at) == ("queued", None, 0, None)
        assert jobs.queue_positions(session, [job, other]) == {other.id: 1, job.id: 2}
        assert claimed(session, job).claimed_examples == 320


def test_resume_forgets_attempts(database: Database) -> None:
    """A paused job starts with no attempts counted, at the back of the queue."""
    with database.writing() as session:
        job, other = make_job(session, attempt=2, queued_at=1.0), make_job(session)
        jobs.pause(session, job.id)
        assert job.attempt == 2
        jobs.resume(session, job.id)
        assert (job.attempt, jobs.queue_positions(session, [job, other])) == (0, {other.id: 1, job.id: 2})


def test_retry_needs_its_data_set(database: Database) -> None:
    """A failed job whose data set was deleted cannot be retried."""
    with database.writing() as session:
        dataset = make_dataset(session)
        job = make_job(session, dataset, status="failed")
        dataset.deleted_at = 1.0
        with pytest.raises(Gone):
            jobs.retry(session, job.id)


def test_priority_reorders_the_queue(any_database: Database) -> None:
    """A job whose priority rises moves up, one whose priority falls moves down; queue_position is 1 for the next."""
    with any_database.writing() as session:
        first, second, third = [make_job(session, queued_at=float(number)) for number in range(3)]
        assert [jobs.queue_position(session, job) for job in (first, second, third)] == [1, 2, 3]
        jobs.update(session, third.id, priority=5)
        jobs.update(session, first.id, priority=-5)
        assert [jobs.queue_position(session, job) for job in (first, second, third)] == [3, 2, 1]
        claim = jobs.claim(session, "w")
        assert claim is third
        assert jobs.queue_position(session, third) is None


def test_metadata_is_replaced_whole(database: Database) -> None:
    """Metadata can be changed in any state, and what is not given stays."""
    with database.writing() as session:
        job = make_job(session, request={"metadata": {"a": 1}, "priority": 4})
        jobs.update(session, job.id, metadata={"b": [1, {"c": None}]})
        assert (job.user_metadata, job.priority) == ({"b": [1, {"c": None}]}, 4)
        with pytest.raises(InvalidState):
            jobs.update(session, make_job_in(session, "succeeded").id, priority=3)


def test_delete_names_what_stays(any_database: Database) -> None:
    """Deleting a job removes its rows and names the objects that living model versions need."""
    with any_database.writing() as session:
        job = make_job_in(session, "succeeded")
        older = make_checkpoint(session, job, 160, best=False)
        registry.publish_checkpoint(session, older.id, "gone")
        registry.delete(session, "gone")
        newer = session.scalars(select(Checkpoint).where(Checkpoint.examples_seen == 320)).one()
        kept = jobs.delete(session, job.id)
    names = ("generator.safetensors", "model.json", "generator.onnx")
    assert kept == {f"{newer.snapshot_key}/{name}" for name in names}
    with any_database.reading() as session:
        assert [session.scalars(select(table)).all() for table in (Job, Event, Checkpoint)] == [[], [], []]


def test_what_is_pinned_of_a_job_goes_with_it(any_database: Database) -> None:
    """The pins of the job and of its checkpoints are forgotten; those of others, and of what was published from it, stay."""
    with any_database.writing() as session:
        job, other = (make_job_in(session, "succeeded") for _ in range(2))
        for each in (job, other):
            registry.pin(session, each.id)
            registry.pin(session, make_checkpoint(session, each, 160, best=False).id)
        registry.pin(session, f"{job.model_name}:1")
    with any_database.writing() as session:
        pinned = set(registry.pins(session))
        own = set(session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job.id))) | {job.id}
        jobs.delete(session, job.id)
        assert set(registry.pins(session)) == pinned - own
        assert len(pinned) == 5
        assert len(pinned - own) == 3


def test_a_running_job_is_not_deleted(database: Database) -> None:
    """A running job has to be cancelled first."""
    with database.writing() as session:
        job = make_job_in(session, "running")
        with pytest.raises(InvalidState, match="cancel it first"):
            jobs.delete(session, job.id)
