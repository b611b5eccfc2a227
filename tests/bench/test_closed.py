"""From runs to a table and targets."""

import pytest

from bench.serving.closed import Run, in_turns, summarise, table, targets
from bench.serving.contenders import CONTENDERS
from bench.serving.report import Target, document
from bench.serving.wrk import Load


def run(name: str, connections: int, requests: int, *, p50: float = 1, p99: float = 2, refused: int = 0) -> Run:
    load = Load(requests, 1.0, p50, p99, refused, broken=0)
    return Run(name, connections, load, cpu_seconds=0.5, memory_bytes=2**20)


def test_rounds_turn_the_order_around() -> None:
    """What comes first in one round comes last in the next."""
    first, second, third = CONTENDERS[:3]
    assert list(in_turns([first, second, third], 2)) == [[first, second, third], [third, second, first]]


def test_a_row_has_the_medians_of_its_rounds() -> None:
    """Refusals are taken from the rate and from what the CPU time is divided by."""
    (row,) = summarise(
        [run("ours", 32, 100, p50=1), run("ours", 32, 500, p50=9, refused=300), run("ours", 32, 150, p50=2)]
    )
    assert (row.rounds, row.requests_per_second, row.slowest, row.fastest) == (3, 150, 100, 200)
    assert (row.p50_ms, row.refused) == (2, 300)
    assert row.cpu_seconds_per_1000 == pytest.approx(1000 * 0.5 / 150)
    assert "(100-200)" in table([row])


def test_a_round_without_an_answer_has_no_times() -> None:
    """It counts as a rate of nothing, not as a latency of nothing."""
    (row,) = summarise([run("ours", 1, 0, p50=0, p99=0), run("ours", 1, 100, p50=4, p99=8)])
    assert (row.slowest, row.p50_ms, row.p99_ms) == (0, 4, 8)


def test_targets_compare_with_the_right_rows() -> None:
    """The better of our two at 32 connections against LitServe, one connection against the server by hand, 304 against the ceiling."""
    runs = [
        *(run("ours", 32, 500, p99=30), run("ours, 2 processes", 32, 700, p99=20), run("litserve", 32, 100, p99=40)),
        *(run("ours", 1, 1, p50=1), run("by hand", 1, 1, p50=2), run("ours, known", 32, 500), run("ceiling", 32, 1000)),
    ]
    found = {each.what: (each.value, each.met) for each in targets(summarise(runs))}
    assert found == {
        "32 connections, rate / LitServe's": (7, True),
        "32 connections, p99 / LitServe's": (0.5, True),
        "1 connection, p50 / by hand": (0.5, True),
        "32 connections, 304 / ceiling": (0.5, False),
    }


def test_targets_are_left_out_where_a_row_is_missing() -> None:
    """Nothing is compared with a server that was not measured."""
    assert targets(summarise([run("ours", 32, 500)])) == []


def test_a_missed_target_says_so() -> None:
    """In the text and in the document."""
    missed = Target("npz / bare", 0.5, 0.85, at_least=True)
    assert str(missed) == "npz / bare: 0.5 (at least 0.85: MISSED)"
    assert document([{"rate": 1.23456}], [missed]) == {
        "rows": [{"rate": 1.2346}],
        "targets": {"npz / bare": {"value": 0.5, "met": False}},
    }
