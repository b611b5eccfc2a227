"""Seeds as people write them: `7`, `0-63`, `0-9,20,30-39`; both ends of a range count."""

import re
import secrets
from collections.abc import Sequence

from app.errors import FieldError, Invalid
from models.config import DRAWN_BELOW, MAX_SEED

PART = re.compile(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?")
LIKE = "seeds are whole numbers from 0 on, written like 0-63,70."
MOST_CHARACTERS = 65_536  # of seeds as text
MOST_SHOWN = 40  # characters of what is wrong
TOO_MANY = (
    "{count} samples were asked for, and one request may ask for {limit} at most: ask several times, or make a batch with "
    "POST /v1/batches."
)


def parse(text: str, *, limit: int, pointer: str = "#/seeds", too_many: str = TOO_MANY) -> list[int]:
    """The seeds that `text` names, in its order. Raises Invalid, before anything is expanded, for more than `limit`.

    `too_many` is what is said then, with `{count}` and `{limit}`: a request, a grid and a batch have different ways out.
    """
    return [seed for each in parse_ranges(text, limit=limit, pointer=pointer, too_many=too_many) for seed in each]


def parse_ranges(text: str, *, limit: int, pointer: str = "#/seeds", too_many: str = TOO_MANY) -> list[range]:
    """The same as ranges."""
    if not text.strip():
        raise _invalid(f"No seed is given: {LIKE}", pointer)
    ranges = [_range(part, pointer) for part in text.split(",")]
    count = sum(each.stop - each.start for each in ranges)  # len() overflows on long ranges
    check_count(count, limit=limit, pointer=pointer, too_many=too_many)
    return ranges


def consecutive(first: int, n: int, *, limit: int) -> list[int]:
    """The seeds first .. first + n - 1. Raises Invalid when there are too many or they leave the range of seeds."""
    check_count(n, limit=limit, pointer="#/n")
    if first + n - 1 > MAX_SEED:
        detail = f"The last seed, {first} + {n} - 1, is more than {MAX_SEED}: begin at {MAX_SEED - n + 1} at most."
        raise _invalid(detail, "#/seed")
    return list(range(first, first + n))


def draw(n: int, *, limit: int) -> list[int]:
    """Consecutive seeds from a random start below 2**53, `n` of them, so that the answer can be asked for again by seed and n."""
    check_count(n, limit=limit, pointer="#/n")
    return consecutive(secrets.randbelow(DRAWN_BELOW - n), n, limit=limit)


def check_count(count: int, *, limit: int, pointer: str, too_many: str = TOO_MANY) -> None:
    """Raise Invalid unless 1 <= count <= limit."""
    if count < 1:
        raise _invalid("No sample was asked for: ask for one at least.", pointer)
    if count > limit:
        raise _invalid(too_many.format(count=count, limit=limit), pointer)


def check_all(seeds: Sequence[int], *, limit: int, pointer: str = "#/seeds") -> list[int]:
    """The seeds of a list, checked like those of a text."""
    check_count(len(seeds), limit=limit, pointer=pointer)
    return list(seeds)


def _range(part: str, pointer: str) -> range:
    if not part.strip():
        raise _invalid(f"There is a comma with no seed before or after it: {LIKE}", pointer)
    found = PART.fullmatch(part)
    if found is None:
        raise _invalid(f"{_shown(part)!r} is not a seed or a range of seeds: {LIKE}", pointer)
    first = _seed(found[1], pointer)
    last = _seed(found[2] or found[1], pointer)
    if last < first:
        detail = f"The range {first}-{last} is reversed: write {last}-{first}, or each seed by itself if that order is meant."
        raise _invalid(detail, pointer)
    return range(first, last + 1)


def _seed(digits: str, pointer: str) -> int:
    significant = digits.lstrip("0") or "0"
    # The length first: Python refuses to read thousands of digits.
    if len(significant) > len(str(MAX_SEED)) or int(significant) > MAX_SEED:
        raise _invalid(f"Seeds go from 0 to {MAX_SEED}; {_shown(significant)} is more.", pointer)
    return int(significant)


def _shown(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _invalid(detail: str, pointer: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, detail)])
