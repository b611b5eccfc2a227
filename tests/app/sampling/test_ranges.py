"""Ranges of seeds behave as the list of seeds that they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sampling import ranges
from app.sampling.seeds import parse, parse_ranges

spans = st.tuples(st.integers(0, 40), st.integers(1, 9)).map(lambda pair: range(pair[0], sum(pair)))
many = st.lists(spans, min_size=1, max_size=6)


def listed(seeds: list[range]) -> list[int]:
    return [seed for each in seeds for seed in each]


@given(many, st.integers(1, 12), st.integers(0, 60), st.integers(0, 60))
def test_parts_are_slices_of_the_list(seeds: list[range], size: int, start: int, stop: int) -> None:
    """Whatever is cut out, in one piece or in equal parts, is what would be cut out of the list; nothing is empty."""
    whole = listed(seeds)
    assert ranges.count(seeds) == len(whole)
    assert listed(ranges.part(seeds, start, stop)) == whole[start:stop]
    assert [listed(part) for part in ranges.parts(seeds, size)] == [
        whole[first : first + size] for first in range(0, len(whole), size)
    ]


@given(many)
def test_text_is_read_again(seeds: list[range]) -> None:
    """As text they are what a person writes, and are read as the same."""
    assert parse_ranges(ranges.text(seeds), limit=1000) == seeds


@given(many)
def test_repeated_seeds_are_noticed(seeds: list[range]) -> None:
    """They are distinct when the list has no seed twice."""
    assert ranges.distinct(seeds) is (len(set(listed(seeds))) == len(listed(seeds)))


def test_the_longest_ranges_are_no_list() -> None:
    """All seeds there are can be counted and cut."""
    everything = [range(2**63)]
    assert ranges.count(everything) == 2**63
    assert ranges.part(everything, 2**62, 2**62 + 2) == [range(2**62, 2**62 + 2)]


@pytest.mark.parametrize("seeds", [[5], [0, 1, 2, 3], [3, 2, 1], [7, 7, 8, 1, 2, 2**63 - 1]])
def test_a_list_becomes_ranges(seeds: list[int]) -> None:
    """In its order, with what repeats."""
    assert parse(ranges.text(ranges.runs(seeds)), limit=100) == seeds
    assert ranges.text(ranges.runs([0, 1, 2, 5])) == "0-2,5"
