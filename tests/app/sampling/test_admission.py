"""Who is let in to wait, and what the others are told."""

from collections.abc import Sequence

import pytest

from app.errors import Busy, DeadlineExceeded
from app.sampling.admission import BULK_RETRY_SECONDS, DEADLINE_SHARE, SMALL_BYTES, Admission, Place, Sent

PACE = 0.5  # seconds per sample
LIMIT_BYTES = 1_000_000


def admission(
    limit: int = 100, wait_seconds: float = 1_000.0, *, sizes: Sequence[int] = (), lag: float = 0.0
) -> Admission:
    """One at which requests of these sizes wait already."""
    made = Admission(limit, LIMIT_BYTES, wait_seconds, lambda: PACE, lambda: lag)
    for size in sizes:
        made.enter(size, None)
    return made


def retry_after(made: Admission, n: int, deadline_seconds: float | None = None, *, each_bytes: int = 0) -> int:
    """What a request that is refused is told."""
    waiting = made.waiting
    with pytest.raises(Busy) as caught:
        made.enter(n, deadline_seconds, each_bytes)
    assert made.waiting == waiting
    return int(caught.value.headers["Retry-After"])


def test_alone_a_request_may_be_larger_than_the_queue() -> None:
    """It is let in when nobody waits, with any deadline; whoever comes next is refused until it is served or leaves."""
    made = admission(limit=10)
    large = made.enter(1_000, 0.001)
    assert made.waiting == 1_000
    assert retry_after(made, 1) == 991 * PACE + 0.5  # whole seconds, rounded up
    large.arrived(995)
    made.enter(5, None)
    retry_after(made, 1)
    large.leave()
    assert made.waiting == 5
    made.enter(5, None)


def test_what_is_beyond_the_limit_is_refused_until_there_is_room() -> None:
    """Retry-After is the time in which the surplus is made, a second at least."""
    made = admission(limit=100, sizes=[60, 30])
    assert retry_after(made, 11) == 1
    assert retry_after(made, 14) == 2
    assert retry_after(made, 90) == 40
    made.enter(10, None)
    assert made.waiting == 100


def test_leaving_gives_back_what_is_left() -> None:
    """Those who were served in part give back the rest, and leaving twice is no harm."""
    made = admission(limit=10)
    first, second = made.enter(6, None), made.enter(4, None)
    first.arrived(2)
    first.leave()
    assert made.waiting == 4
    second.arrived(4)
    second.leave()
    assert made.waiting == 0
    made.enter(100, None)


@pytest.mark.parametrize(
    ("sizes", "n", "deadline", "late"),
    [
        ([50], 1, 1.0, 0.0),  # one row of the other is made before
        ([50], 1, 0.75, 0.25),
        ([50], 1, 0.5, 0.5),
        ([50], 10, 10.0, 0.0),  # ten of the other, ten of its own
        ([50], 10, 9.0, 1.0),
        ([50, 2, 1], 10, 11.5, 0.0),  # the small ones have no more than they ask for
        ([50, 2, 1], 10, 10.0, 1.5),
        ([1] * 8, 1, 4.5, 0.0),
        ([1] * 8, 1, 1.5, 3.0),
    ],
)
def test_lateness_is_told_by_fair_shares(sizes: list[int], n: int, deadline: float, late: float) -> None:
    """A request is refused when it cannot be in time though rows are shared equally, and is told by how much it is late."""
    made = admission(sizes=sizes)
    if late:
        assert retry_after(made, n, deadline / DEADLINE_SHARE) == max(1, -int(-late // 1))
    else:
        made.enter(n, deadline / DEADLINE_SHARE)


def test_without_a_deadline_the_longest_wait_counts() -> None:
    """It counts until a request's turn comes, however long its own samples take."""
    made = admission(wait_seconds=5.0, sizes=[80])
    made.enter(10, None)
    assert retry_after(made, 11) == 1
    assert isinstance(made.enter(1, None), Place)


def test_while_the_pace_is_unknown_nobody_is_late() -> None:
    """Nothing was made yet, so nothing can be said: only the limit counts."""
    made = Admission(100, LIMIT_BYTES, 1.0, lambda: 0.0, lambda: 0.0)
    made.enter(90, None)
    made.enter(10, 0.001)
    assert retry_after(made, 1) == 1


def test_large_answers_are_refused_by_bytes_until_others_are_sent() -> None:
    """What is made counts until it is sent, or its request leaves, and one answer may have half of the rest; small ones are let in all the
    same, and so is one alone.
    """
    made = admission()
    first = made.enter(10, None, 60_000)
    assert retry_after(made, 1, each_bytes=300_000) == 10 * PACE
    made.enter(1, None, SMALL_BYTES).leave()
    first.arrived(10)
    assert retry_after(made, 1, each_bytes=300_000) == BULK_RETRY_SECONDS
    first.sent(5)
    second = made.enter(1, None, 300_000)
    assert made.held_bytes == 600_000
    retry_after(made, 1, each_bytes=300_000)
    first.leave()
    first.leave()
    second.fail()
    assert (made.waiting, made.held_bytes) == (0, 300_000)
    second.leave()
    made.enter(1, None, 2 * LIMIT_BYTES).leave()
    assert (made.waiting, made.held_bytes) == (0, 0)


def test_what_is_large_is_held_until_it_was_sent() -> None:
    """It waits no more when it is made, and what failed neither; what is small, or is sent to nobody, holds nothing longer."""
    made = admission()
    with Sent() as sent:
        for place in (made.enter(10, None, 30_000), made.enter(1, None, SMALL_BYTES + 1)):
            place.arrived(1)
            place.leave_when(sent)
        made.enter(1, None, SMALL_BYTES).leave_when(sent)
        made.enter(1, None, 200_000).leave_when(None)
        assert (made.waiting, made.waiters, made.held_bytes) == (0, set(), 300_000 + SMALL_BYTES + 1)
    assert made.held_bytes == 0


@pytest.mark.parametrize(("n", "deadline", "least"), [(1_000, 5.0, 10.0), (1, 0.2, 0.3)])
def test_a_deadline_that_is_too_short_for_oneself_is_said_alone_too(n: int, deadline: float, least: float) -> None:
    """Coming again would not help, so no time is told for it; a little longer, and it is let in."""
    made = admission()
    with pytest.raises(DeadlineExceeded, match="ask for fewer") as caught:
        made.enter(n, deadline, 1, least)
    assert caught.value.headers == {}
    assert (made.waiting, made.held_bytes) == (0, 0)
    made.enter(n, least, 1, least)


def test_while_others_wait_the_pace_tells_what_is_hopeless() -> None:
    """Not the others are in its way but its own samples; fewer of them are let in."""
    made = admission(sizes=[1])
    with pytest.raises(DeadlineExceeded, match=r"takes 5 s here, and the request allows 4.9 s"):
        made.enter(10, 4.9)
    made.enter(6, 4.9)


def test_a_busy_event_loop_makes_late_too() -> None:
    """Where it, and not the generator, is what all wait for, its turns count: three of them go by until an answer is sent."""
    idle, busy = (admission(wait_seconds=2.0, sizes=[1], lag=lag) for lag in (0.4, 0.6))
    idle.enter(1, None)
    assert retry_after(busy, 1) == 1
