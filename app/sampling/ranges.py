"""Many seeds without a list of them: ranges in an order that counts, of which a part may be taken."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise


def count(ranges: Iterable[range]) -> int:
    """How many seeds there are."""
    return sum(each.stop - each.start for each in ranges)


def part(ranges: Iterable[range], start: int, stop: int) -> list[range]:
    """The seeds in the places [start, stop)."""
    found, before = [], 0
    for each in ranges:
        length = each.stop - each.start
        first, last = max(start - before, 0), min(stop - before, length)
        if first < last:
            found.append(range(each.start + first, each.start + last))
        before += length
    return found


def runs(seeds: Sequence[int]) -> list[range]:
    """A list of seeds as ranges, in its order."""
    starts = [0, *(index for index, (a, b) in enumerate(pairwise(seeds), 1) if b != a + 1), len(seeds)]
    return [range(seeds[start], seeds[end - 1] + 1) for start, end in pairwise(starts)]


def parts(ranges: Sequence[range], size: int) -> Iterator[list[range]]:
    """`size` seeds at a time, in one pass; the last part may have fewer."""
    taken: list[range] = []
    wanted = size
    for each in ranges:
        start = each.start
        while start < each.stop:
            stop = min(each.stop, start + wanted)
            taken.append(range(start, stop))
            wanted -= stop - start
            start = stop
            if not wanted:
                yield taken
                taken, wanted = [], size
    if taken:
        yield taken


def text(ranges: Iterable[range]) -> str:
    """As `app.sampling.seeds.parse_ranges` reads it."""
    return ",".join(
        str(each.start) if each.stop - each.start == 1 else f"{each.start}-{each.stop - 1}" for each in ranges
    )


def distinct(ranges: Iterable[range]) -> bool:
    """Whether no seed comes twice."""
    ordered = sorted(ranges, key=lambda each: each.start)
    return all(before.stop <= after.start for before, after in pairwise(ordered))
