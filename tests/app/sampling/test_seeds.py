"""Seeds and classes as people write them."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid
from app.sampling.labels import index_of
from app.sampling.seeds import consecutive, draw, parse
from models.config import DRAWN_BELOW, MAX_SEED


def test_lists_and_ranges_keep_their_order() -> None:
    """Single seeds and ranges, both ends included, in the order in which they are written; repeats are allowed."""
    assert parse("7, 0-3,70,2-2,7", limit=100) == [7, 0, 1, 2, 3, 70, 2, 7]


def test_the_last_seed_is_a_seed() -> None:
    """Seeds go up to 2**63 - 1."""
    assert parse(f"{MAX_SEED - 1}-{MAX_SEED}", limit=2) == [MAX_SEED - 1, MAX_SEED]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "-1",
        "1-",
        "5-1",
        "1.5",
        "one",
        "1--2",
        "0x10",
        "1e3",
        "²",
        "١",
        str(MAX_SEED + 1),
        f"0-{MAX_SEED + 1}",
        "9" * 40,
    ],
)
def test_nonsense_is_refused_by_name(text: str) -> None:
    """What is not a list of seeds is an error that names the parameter."""
    with pytest.raises(Invalid) as caught:
        parse(text, limit=10, pointer="#/seeds")
    assert caught.value.errors[0].pointer == "#/seeds"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "No seed is given: seeds are whole numbers from 0 on, written like 0-63,70."),
        (" ", "No seed is given: seeds are whole numbers from 0 on, written like 0-63,70."),
        (
            "1,,2",
            "There is a comma with no seed before or after it: seeds are whole numbers from 0 on, written like 0-63,70.",
        ),
        (
            "1,",
            "There is a comma with no seed before or after it: seeds are whole numbers from 0 on, written like 0-63,70.",
        ),
        ("-1", "'-1' is not a seed or a range of seeds: seeds are whole numbers from 0 on, written like 0-63,70."),
        (
            "x" * 50,
            f"'{'x' * 40}…' is not a seed or a range of seeds: seeds are whole numbers from 0 on, written like 0-63,70.",
        ),
        ("7-5", "The range 7-5 is reversed: write 5-7, or each seed by itself if that order is meant."),
        ("0-9223372036854775808", "Seeds go from 0 to 9223372036854775807; 9223372036854775808 is more."),
        ("99999999999999999999-1", "Seeds go from 0 to 9223372036854775807; 99999999999999999999 is more."),
        ("9" * 60_000, f"Seeds go from 0 to 9223372036854775807; {'9' * 40}… is more."),
        (
            "0-10",
            "11 samples were asked for, and one request may ask for 10 at most: ask several times, or make a batch with POST /v1/batches.",
        ),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_wrong_is_said_and_what_to_do(text: str, says: str) -> None:
    """In the words of what was written, cut short where that is long."""
    with pytest.raises(Invalid) as caught:
        parse(text, limit=10)
    assert caught.value.detail == caught.value.errors[0].detail == says


def test_leading_zeros_change_nothing() -> None:
    """However many there are."""
    assert parse(f"007-{'0' * 5000}9", limit=10) == [7, 8, 9]


@pytest.mark.parametrize("text", [f"0-{MAX_SEED}", "0-999999999", ",".join(["0-999999999"] * 100), "0-10"])
def test_too_many_are_refused_without_expanding_them(text: str) -> None:
    """A range that is a billion long costs neither time nor memory."""
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(Invalid, match="one request may ask for 10 at most"):
        parse(text, limit=10)
    assert time.perf_counter() - begun < 0.5
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser fail in another way, or gives a seed out of range."""
    try:
        seeds = parse(text, limit=1000)
    except Invalid:
        return
    assert 1 <= len(seeds) <= 1000
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


def test_consecutive_seeds_stay_in_range() -> None:
    """seed and n name seed .. seed + n - 1, which must all be seeds."""
    assert consecutive(5, 3, limit=10) == [5, 6, 7]
    with pytest.raises(Invalid, match=f"more than {MAX_SEED}: begin at {MAX_SEED - 1} at most"):
        consecutive(MAX_SEED, 2, limit=10)


def test_drawn_seeds_are_exact_in_any_json_reader() -> None:
    """The server's own seeds are consecutive and below 2**53."""
    drawn = draw(1000, limit=1000)
    assert drawn == list(range(drawn[0], drawn[0] + 1000))
    assert drawn[-1] < DRAWN_BELOW
    assert drawn != draw(1000, limit=1000)


def test_a_class_is_a_name_or_else_an_index() -> None:
    """A name wins over an index that is written alike; numbers that are no names are indices."""
    assert index_of(["1", "2", "0"], "0") == 2
    assert index_of(["1", "2", "0"], 1) == 0
    assert index_of(["cat", "dog"], "dog") == 1
    assert index_of(["cat", "dog"], 1) == index_of(["cat", "dog"], "1") == 1


@pytest.mark.parametrize("wanted", ["bird", 2, -1, "", "²", "9" * 30, 10**20])
def test_an_unknown_class_is_refused_with_what_there_is(wanted: str | int) -> None:
    """The error lists the classes."""
    with pytest.raises(Invalid, match="cat, dog"):
        index_of(["cat", "dog"], wanted)


def test_a_model_without_classes_says_so() -> None:
    """A class for an unconditional model is refused."""
    with pytest.raises(Invalid, match="no classes"):
        index_of([], "cat")
