"""Who gives way to whom."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import jobs
from app.db import Database
from app.jobs import Order
from app.jobs.turns import Running, yielding
from tests.factories import claimed, make_dataset, make_job

SLICE = 900.0


@pytest.mark.parametrize(
    ("waiting", "running", "chosen"),
    [
        ([], [("a", 0, 5000)], ""),
        ([0], [("a", 0, 10)], ""),
        ([0], [("a", 0, 900)], "a"),
        ([-1], [("a", 0, 5000)], ""),
        ([1], [("a", 0, 0)], "a"),
        ([0], [("a", 0, 1000), ("b", 0, 2000), ("c", 0, 10)], "b"),
        ([0, 0], [("a", 0, 1000), ("b", 0, 2000), ("c", 0, 10)], "ab"),
        ([5], [("a", 1, 10), ("b", 0, 2000), ("c", 0, 10)], "c"),
        ([5, 5], [("a", 1, 10), ("b", 0, 2000), ("c", 0, 10)], "bc"),
        ([5, 1], [("a", 1, 2000), ("b", 0, 2000), ("c", 0, 10)], "bc"),
        ([5, 1], [("a", 1, 2000), ("b", 1, 10)], "ab"),
        ([5, 1], [("a", 1, 10), ("b", 1, 20)], "a"),
    ],
)
def test_examples(waiting: list[int], running: list[tuple[str, int, float]], chosen: str) -> None:
    """Higher priority displaces the lowest and newest at once, equal priority the longest after its slice, lower never."""
    assert yielding(waiting, [Running(*job) for job in running], SLICE) == set(chosen)


PRIORITIES = st.integers(-2, 2)
RUNNING = st.lists(st.tuples(PRIORITIES, st.floats(0, 3 * SLICE)), max_size=6).map(
    lambda jobs: [Running(str(number), *job) for number, job in enumerate(jobs)]
)
WAITING = st.lists(PRIORITIES, max_size=6).map(lambda priorities: sorted(priorities, reverse=True))


@given(WAITING, RUNNING)
def test_each_waiting_job_displaces_at_most_one(waiting: list[int], running: list[Running]) -> None:
    """No more give way than wait; each victim is matched by a waiting job that may displace it."""
    chosen = [job for job in running if job.id in yielding(waiting, running, SLICE)]
    assert any(
        all(priority > job.priority or (priority == job.priority and job.seconds >= SLICE) for priority, job in pairs)
        for pairs in (zip(order, chosen, strict=True) for order in itertools.permutations(waiting, len(chosen)))
    )


@given(WAITING, RUNNING)
def test_priority_never_waits_behind_less(waiting: list[int], running: list[Running]) -> None:
    """After the turn, no job that still waits has a higher priority than one that runs on."""
    chosen = yielding(waiting, running, SLICE)
    staying = [job.priority for job in running if job.id not in chosen]
    still_waiting = waiting[len(chosen) :]
    assert not staying or not still_waiting or max(still_waiting) <= min(staying)


@given(WAITING, RUNNING)
def test_the_order_of_the_rows_does_not_matter(waiting: list[int], running: list[Running]) -> None:
    """Supervisors that see the rows in another order choose the same victims."""
    assert yielding(waiting, running, SLICE) == yielding(waiting, running[::-1], SLICE)


def test_renew_tells_one_victim(any_database: Database) -> None:
    """With three jobs running and one more urgent waiting, only the lowest and newest is told to yield, until it has gone."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        low, newer, high = [claimed(session, make_job(session, dataset, priority=p)) for p in (0, 0, 3)]
        low.claimed_at -= 60
        urgent = make_job(session, dataset, priority=9)
        for _ in range(2):
            orders = [jobs.renew(session, job.id, job.fence) for job in (low, newer, high)]
            assert orders == [Order.CONTINUE, Order.YIELD, Order.CONTINUE]
        jobs.release(session, newer.id, newer.fence, "yield")
        assert jobs.claim(session, "w") is urgent
        assert [jobs.renew(session, job.id, job.fence) for job in (low, high)] == [Order.CONTINUE] * 2


def test_a_job_that_leaves_anyway_makes_room(any_database: Database) -> None:
    """While a running job is about to pause, its place goes to the first who waits, and nobody else gives way."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        leaving, other = [claimed(session, make_job(session, dataset)) for _ in range(2)]
        make_job(session, dataset, priority=9)
        jobs.pause(session, leaving.id)
        assert jobs.renew(session, leaving.id, leaving.fence) == Order.PAUSE
        assert jobs.renew(session, other.id, other.fence) == Order.CONTINUE


def test_equal_jobs_take_turns(any_database: Database) -> None:
    """After its slice a job goes behind the waiting one, which then runs: the two alternate, and no attempt is counted."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        first, second = [make_job(session, dataset, queued_at=float(number)) for number in range(2)]
    ran = []
    for _ in range(4):
        with any_database.writing() as session:
            job = jobs.claim(session, "w")
            assert job is not None
            assert jobs.renew(session, job.id, job.fence) == Order.CONTINUE
            job.claimed_at -= any_database.settings.time_slice_seconds
            session.flush()
            assert jobs.renew(session, job.id, job.fence) == Order.YIELD
            jobs.release(session, job.id, job.fence, Order.YIELD)
            ran.append(job.id)
            assert (job.status, job.attempt) == ("queued", 0)
    assert ran == [first.id, second.id, first.id, second.id]
