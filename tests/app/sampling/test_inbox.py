"""Where a request waits for its rows."""

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from app.errors import DeadlineExceeded, Unavailable
from app.sampling.admission import Admission
from app.sampling.inbox import Inbox
from app.sampling.scheduling import Rows

SIZES = (3, 1, 4, 2)
STARTS = (0, 3, 4, 8)


def rows(part: int) -> Rows:
    return Rows(STARTS[part], None, np.full((SIZES[part], 1, 1, 1), part, np.uint8))


def inbox_of(deadline_seconds: float | None = None) -> Inbox:
    """Of a request for all those rows."""
    return Inbox(Admission(100, 10_000, 60, lambda: 0.0).enter(sum(SIZES), deadline_seconds), deadline_seconds)


def test_what_has_come_waits_no_more() -> None:
    """Rows count as made when they arrive, whenever they are taken; after a failure nothing is waited for."""

    async def scenario() -> None:
        admission = Admission(100, 10_000, 60, lambda: 0.0)
        inbox = Inbox(admission.enter(10, None))
        for part, waiting in ((2, 6), (0, 3)):
            inbox.put(rows(part))
            assert admission.waiting == waiting
        inbox.put(Unavailable("no"))
        assert admission.waiting == 0
        inbox.put(rows(1))  # it was under way
        assert admission.waiting == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_rows_are_taken_in_order_however_they_arrive(order: Sequence[int]) -> None:
    """Some come while nobody waits and some while somebody does; each part is taken when all before it were."""

    async def scenario() -> list[int]:
        inbox = inbox_of()
        for part in order[:2]:
            inbox.put(rows(part))
        for delay, part in enumerate(order[2:]):
            inbox.loop.call_later(0.001 * (delay + 1), inbox.put, rows(part))
        taken = [await asyncio.wait_for(inbox.take(), 10) for _ in SIZES]
        inbox.close()
        return [each.start for each in taken]

    assert asyncio.run(scenario()) == list(STARTS)


def test_a_failure_counts_whatever_has_come() -> None:
    """Rows that wait to be taken are of no use to an answer that cannot be whole."""

    async def scenario() -> None:
        inbox = inbox_of()
        inbox.put(rows(0))
        inbox.put(Unavailable("no"))
        for _ in range(2):
            with pytest.raises(Unavailable):
                await inbox.take()

    asyncio.run(scenario())


def test_one_who_waits_is_woken_by_a_failure() -> None:
    """It need not wait for rows that will not come."""

    async def scenario() -> None:
        inbox = inbox_of()
        inbox.loop.call_later(0.001, inbox.put, Unavailable("no"))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(inbox.take(), 10)

    asyncio.run(scenario())


def test_after_the_deadline_nothing_is_taken() -> None:
    """One who waits is told so when the time is up; so is one whose rows have come but were not taken."""

    async def scenario() -> None:
        inbox = inbox_of(0.01)
        with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
            await asyncio.wait_for(inbox.take(), 10)
        inbox.put(rows(0))
        with pytest.raises(DeadlineExceeded):
            await inbox.take()

    asyncio.run(scenario())


def test_other_work_is_awaited_as_long_as_there_is_time() -> None:
    """Its result comes through, and its own timeout is not taken for the deadline's."""

    async def quick() -> int:
        return 7

    async def scenario() -> None:
        assert await inbox_of().unless_late(quick()) == 7
        patient = inbox_of(60)
        assert await patient.unless_late(quick()) == 7
        patient.close()
        with pytest.raises(DeadlineExceeded):
            await inbox_of(0.01).unless_late(asyncio.sleep(60))

    asyncio.run(scenario())


def test_closing_stops_the_clock() -> None:
    """After `close` the deadline passes unnoticed."""

    async def scenario() -> Rows:
        inbox = inbox_of(0.01)
        inbox.put(rows(0))
        inbox.close()
        await asyncio.sleep(0.03)
        return await inbox.take()

    assert asyncio.run(scenario()).start == 0
