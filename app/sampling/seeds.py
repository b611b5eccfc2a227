"""Seeds as people write them: `7`, `0-63`, `0-9,20,30-39`; both ends of a range count."""

import re
import secrets
from collections.abc import Sequence

from app.errors import FieldError, Invalid
from models.config import DRAWN_BELOW, MAX_SEED

PART = re.compile(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?")


def parse(text: str, *, limit: int, pointer: str = "#/seeds") -> list[int]:
    """The seeds that `text` names, in its order. Raises Invalid, before anything is expanded, for more than `limit`."""
    return [seed for each in parse_ranges(text, limit=limit, pointer=pointer) for seed in each]


def parse_ranges(text: str, *, limit: int, pointer: str = "#/seeds") -> list[range]:
    """The same as ranges."""
    ranges = [_range(part, pointer) for part in text.split(",")]
    count = sum(each.stop - each.start for each in ranges)  # len() overflows on long ranges
    check_count(count, limit=limit, pointer=pointer)
    return ranges


def consecutive(first: int, n: int, *, limit: int) -> list[int]:
    """The seeds first .. first + n - 1. Raises Invalid when there are too many or they leave the range of seeds."""
    check_count(n, limit=limit, pointer="#/n")
    if first + n - 1 > MAX_SEED:
        raise _invalid(f"The last seed, {first} + {n} - 1, is more than {MAX_SEED}.", "#/seed")
    return list(range(first, first + n))


def draw(n: int, *, limit: int) -> list[int]:
    """Consecutive seeds from a random start below 2**53, `n` of them, so that the answer can be asked for again by seed and n."""
    check_count(n, limit=limit, pointer="#/n")
    return consecutive(secrets.randbelow(DRAWN_BELOW - n), n, limit=limit)


def check_count(count: int, *, limit: int, pointer: str) -> None:
    """Raise Invalid unless 1 <= count <= limit."""
    if not 1 <= count <= limit:
        detail = f"{count} samples were asked for; one request may ask for 1 to {limit}."
        raise _invalid(detail, pointer)


def check_all(seeds: Sequence[int], *, limit: int, pointer: str = "#/seeds") -> list[int]:
    """The seeds of a list, checked like those of a text."""
    check_count(len(seeds), limit=limit, pointer=pointer)
    return list(seeds)


def _range(part: str, pointer: str) -> range:
    found = PART.fullmatch(part)
    if found is None:
        raise _invalid(f"{part[:40]!r} is not a seed or a range of seeds: write them like 0-63,70.", pointer)
    first = int(found[1])
    last = int(found[2] or found[1])
    if last < first:
        raise _invalid(f"The range {first}-{last} is reversed: write {last}-{first}.", pointer)
    if last > MAX_SEED:
        raise _invalid(f"Seeds go from 0 to {MAX_SEED}; {last} is more.", pointer)
    return range(first, last + 1)


def _invalid(detail: str, pointer: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, detail)])
