"""Open-loop load against a real server."""

import pytest

from bench.serving import wrk
from bench.serving.arrivals import Arrivals, whole
from bench.serving.open_loop import percentile, summarise
from tests.bench.server import answering


def test_every_request_leaves_and_is_told_of() -> None:
    """The k-th request is the k-th, answers of both kinds are counted, and a refusal that says when to come again is known."""
    with answering() as server:
        paths = ["/good", "/refused", "/good", "/good"]
        load = Arrivals(
            server.port, lambda k: wrk.get(paths[k % 4], If_None_Match=str(k)), rate=500, seconds=0.2, connections=8
        )
        load.run()
    assert sorted(int(tag or "") for _, tag, _ in server.seen) == list(range(100))
    row = summarise(0.5, 500, load, deadline_ms=10_000)
    assert (row.sent, row.answered, row.refused, row.told_when) == (100, 75, 0.25, 1.0)
    assert (row.other, row.lost, row.within_deadline) == (0, 0, 1.0)


def test_a_connection_that_the_server_ended_costs_no_request() -> None:
    """Servers end connections without a word; the next request goes out over another."""
    with answering() as server:
        load = Arrivals(server.port, lambda _: wrk.get("/last"), rate=200, seconds=0.25, connections=2).run()
    assert (len(load.answers), load.broken, load.unanswered) == (50, 0, 0)
    assert server.connections >= 50


def test_requests_wait_for_a_connection_when_all_are_busy() -> None:
    """No more than the given number are opened, and none is left out."""
    with answering() as server:
        load = Arrivals(server.port, lambda _: wrk.get("/good"), rate=2000, seconds=0.1, connections=1).run()
    assert (len(load.answers), load.unanswered, server.connections) == (200, 0, 1)
    assert all(answer.latency > answer.late >= 0 for answer in load.answers)


@pytest.mark.parametrize("cut", range(1, 50))
def test_an_answer_is_whole_with_its_last_byte(cut: int) -> None:
    """Neither a part of the head nor a part of the body is taken for an answer."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello there!"
    assert whole(answer[:-cut]) is None
    assert (whole(answer) or b"").startswith(b"http/1.1 200")


def test_percentiles_of_few_values() -> None:
    """Nothing gives 0, one value gives itself, and many are interpolated."""
    assert percentile([], 99) == 0
    assert percentile([3.0], 99) == 3
    assert percentile([float(value) for value in range(101)], 99) == 99
