"""Who rides in the next forward."""

import threading
from typing import Any

from app.sampling.inputs import Seeds
from app.sampling.scheduling import FairQueue, Work
from app.sampling.shapes import Shapes

LOOP: Any = None  # nothing is delivered here


class Model:
    """All that the queue knows of a generator."""

    def __init__(self, rows: int = 64) -> None:
        self.shapes = Shapes((0, *[rows] * rows), {rows: rows}, {rows: 0.01})


def work(model: Any, size: int) -> Work:
    return Work(model, Seeds(range(size)), lambda _: None, LOOP)


def test_a_forward_is_shared_equally() -> None:
    """One large and three small requests: the small ones are served whole, the large one takes the rest."""
    queue, model = FairQueue(), Model()
    works = [work(model, size) for size in (1000, 1, 2, 5)]
    for each in works:
        queue.put(each)
    batch = queue.take()
    assert batch is not None
    assert {works.index(part.work): part.rows for part in batch.parts} == {0: 56, 1: 1, 2: 2, 3: 5}
    assert batch.rows == 64


def test_nobody_starves_behind_many_large_requests() -> None:
    """With more requests than rows, each gets its turn before anyone gets a second one."""
    queue, model = FairQueue(), Model(rows=4)
    works = [work(model, 100) for _ in range(10)]
    for each in works:
        queue.put(each)
    batches = [queue.take() for _ in range(3)]
    served = [part.work for batch in batches if batch for part in batch.parts]
    assert set(served) == set(works)
    assert len(served) == 12


def test_many_who_want_a_few_are_done_one_after_the_other() -> None:
    """To give each of them some rows of every forward would let all wait for the last, and cost more than it makes."""
    queue, model = FairQueue(), Model()
    works = [work(model, 16) for _ in range(12)]
    for each in works:
        queue.put(each)
    queue.put(small := work(model, 1))
    batches = [batch for batch in (queue.take() for _ in range(4)) if batch]
    assert [part.rows for part in batches[0].parts] == [1, 16, 16, 16, 15]
    assert max(len(batch.parts) for batch in batches) == 5
    ended = [part.work for batch in batches for part in batch.parts if part.stop == len(part.work.inputs)]
    assert ended == [small, *works]


def test_rows_of_a_request_leave_in_order() -> None:
    """Forward after forward takes up where the one before it stopped, until nothing is left."""
    queue, model = FairQueue(), Model()
    queue.put(work(model, 150))
    taken = [batch.parts[0] for batch in (queue.take() for _ in range(3)) if batch]
    assert [(part.start, part.stop) for part in taken] == [(0, 64), (64, 128), (128, 150)]


def test_models_take_turns() -> None:
    """However much waits for one model, another's request rides in the next forward but one."""
    queue, busy, quiet = FairQueue(), Model(), Model()
    queue.put(work(busy, 1000))
    queue.put(work(quiet, 200))
    order = [batch.model is quiet for batch in (queue.take() for _ in range(6)) if batch]
    assert order == [False, True] * 3


def test_withdrawn_work_is_not_done() -> None:
    """What is left of a request that was withdrawn never rides; withdrawing what is done already does no harm."""
    queue, model = FairQueue(), Model()
    gone, stays = work(model, 1000), work(model, 3)
    queue.put(gone)
    queue.take()
    queue.put(stays)
    queue.withdraw(gone)
    batch = queue.take()
    assert batch is not None
    assert [part.work for part in batch.parts] == [stays]
    queue.withdraw(stays)


def test_closing_gives_back_what_is_left() -> None:
    """After `close` nothing is taken, and who still waited is known."""
    queue, model = FairQueue(), Model()
    left = work(model, 3)
    queue.put(left)
    assert queue.close() == [left]
    assert queue.take() is None


def test_an_idle_queue_sleeps_until_work_comes() -> None:
    """`take` gives a lone row as soon as it comes, and ends when the queue is closed."""
    queue, model = FairQueue(), Model()
    came = threading.Event()

    def consume() -> None:
        while queue.take() is not None:
            came.set()

    thread = threading.Thread(target=consume)
    thread.start()
    queue.put(work(model, 1))
    assert came.wait(5)
    queue.close()
    thread.join(5)
    assert not thread.is_alive()
