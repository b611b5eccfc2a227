"""Numbers that change while training goes on, and the parts of the config that take them."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import catalog
from models.config import ConfigError, TrainingConfig
from models.schedules import GammaRamp, RateRamp, value

DOCUMENT: dict[str, Any] = {"network": {"family": "dcgan"}, "loss": "non_saturating", "budget": {"examples": 1000}}
ENDS = st.floats(0, 1e6)
COUNTS = st.integers(0, 10**12)

# Where each scheduled number stands, with one that is allowed and one on either side that is not.
SCHEDULED = {
    ("penalties", "r1_gamma"): (10.0, -0.1, 1.1e6),
    ("penalties", "r2_gamma"): (10.0, -0.1, 1.1e6),
    ("optimizer", "generator_lr"): (1e-3, 0.0, 11.0),
    ("optimizer", "discriminator_lr"): (1e-3, 0.0, 11.0),
    ("optimizer", "beta2"): (0.9, -0.1, 1.0),
    ("augment", "probability"): (0.5, -0.1, 1.1),
}
PLACES = pytest.mark.parametrize(("section", "name"), list(SCHEDULED))


def parse(section: str, name: str, given_value: Any) -> TrainingConfig:
    return catalog.parse_config(DOCUMENT | {section: {name: given_value}})


def faults(section: str, name: str, given_value: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(section, name, given_value)
    return [pointer for pointer, _ in caught.value.errors]


@given(ENDS, ENDS, st.integers(1, 10**12), COUNTS)
def test_a_ramp_is_half_a_cosine_wave(start: float, end: float, over: int, seen: int) -> None:
    """Between its ends a ramp is start cos^2 + end sin^2 of a quarter turn, the closed form in its other shape."""
    quarter = math.pi / 2 * min(seen / over, 1)
    expected = start * math.cos(quarter) ** 2 + end * math.sin(quarter) ** 2
    found = value(GammaRamp(start=start, end=end, over=over), seen, None)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(start, end))


@given(ENDS, ENDS, st.integers(1, 10**12), COUNTS)
def test_a_ramp_stays_between_its_ends(start: float, end: float, over: int, seen: int) -> None:
    """It begins at its start, has arrived after `over` examples, and is never outside the two."""
    ramp = GammaRamp(start=start, end=end, over=over)
    slack = 1e-9 * max(start, end)
    assert value(ramp, 0, None) == start
    assert value(ramp, over, None) == value(ramp, over + seen, None) == pytest.approx(end, rel=1e-12, abs=slack)
    assert min(start, end) - slack <= value(ramp, seen, None) <= max(start, end) + slack


def test_known_values_of_a_ramp() -> None:
    """A third of the way is a quarter of the change, half way half of it."""
    ramp = RateRamp(start=2.0, end=1.0, over=300)
    found = [value(ramp, seen, 10_000) for seen in (0, 100, 150, 200, 300, 301)]
    assert found == pytest.approx([2.0, 1.75, 1.5, 1.25, 1.0, 1.0])


def test_a_ramp_may_wait_at_its_start() -> None:
    """For a share of its length; what is left of it has the same shape."""
    ramp, rest = RateRamp(start=2.0, end=1.0, over=400, hold=0.25), RateRamp(start=2.0, end=1.0, over=300)
    assert [value(ramp, seen, None) for seen in (0, 50, 100)] == [2.0, 2.0, 2.0]
    later = [value(ramp, 100 + seen, None) for seen in (0, 100, 150, 200, 300, 301)]
    assert later == pytest.approx([value(rest, seen, None) for seen in (0, 100, 150, 200, 300, 301)])


def test_a_ramp_over_null_takes_the_whole_run() -> None:
    """Without `over` it ends with the run, and waits at its start while nobody knows how long that is."""
    ramp = RateRamp(start=2.0, end=1.0)
    assert value(ramp, 500, 1000) == pytest.approx(1.5)
    assert value(ramp, 1000, 1000) == pytest.approx(1.0)
    assert value(ramp, 500, None) == 2.0


def test_a_ramps_own_length_counts_whatever_the_run_is() -> None:
    """`over` does not stretch or shrink with the run."""
    ramp = RateRamp(start=2.0, end=1.0, over=100)
    assert value(ramp, 50, None) == value(ramp, 50, 100) == value(ramp, 50, 10**9) == pytest.approx(1.5)


@given(st.floats(0, 1e6), COUNTS, st.none() | st.integers(1, 10**12))
def test_a_plain_number_never_changes(number: float, seen: int, total: int | None) -> None:
    """A number that is no ramp is the same from the first example to the last."""
    assert value(number, seen, total) == number


def test_values_depend_on_the_examples_seen_alone() -> None:
    """Asked in any order, again and again, a ramp answers the same, so that a run can go on from anywhere."""
    ramp = GammaRamp(start=5.0, end=0.5, over=1000)
    seen = list(range(0, 1200, 7))
    forwards = [value(ramp, count, None) for count in seen]
    backwards = [value(ramp, count, None) for count in reversed(seen)]
    assert forwards == backwards[::-1]
    assert ramp == GammaRamp(start=5.0, end=0.5, over=1000)


@PLACES
def test_a_number_or_a_ramp_may_be_given(section: str, name: str) -> None:
    """Both forms are read at every scheduled place, and integers are as good as floats."""
    fine = SCHEDULED[section, name][0]
    assert getattr(getattr(parse(section, name, fine), section), name) == fine
    ramp = getattr(getattr(parse(section, name, {"start": fine, "end": fine / 2, "over": 50}), section), name)
    assert [value(ramp, seen, None) for seen in (0, 50)] == pytest.approx([fine, fine / 2])


@PLACES
@pytest.mark.parametrize("side", [1, 2])
def test_bounds_hold_for_both_ends(section: str, name: str, side: int) -> None:
    """A number out of bounds is a fault of its place, an end of a ramp one of that end."""
    fine, bad = SCHEDULED[section, name][0], SCHEDULED[section, name][side]
    assert faults(section, name, bad) == [f"/{section}/{name}"]
    assert faults(section, name, {"start": bad, "end": fine}) == [f"/{section}/{name}/start"]
    assert faults(section, name, {"start": fine, "end": bad}) == [f"/{section}/{name}/end"]


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"over": 0}, ["/over"]),
        ({"hold": 1.0}, ["/hold"]),
        ({"hold": -0.1}, ["/hold"]),
        ({"over": 10**12 + 1}, ["/over"]),
        ({"over": 1.5}, ["/over"]),
        ({"start": "fast"}, ["/start"]),
        ({"start": float("nan")}, ["/start"]),
        ({"end": float("inf")}, ["/end"]),
        ({"shape": "linear"}, ["/shape"]),
        ({"start": -1, "end": -1}, ["/start", "/end"]),
    ],
)
def test_faults_of_a_ramp_are_named(change: dict[str, Any], pointers: list[str]) -> None:
    """Whatever is wrong in a ramp is pointed at, every fault of it at once."""
    ramp = {"start": 1.0, "end": 0.1, "over": 100} | change
    assert faults("optimizer", "generator_lr", ramp) == [f"/optimizer/generator_lr{pointer}" for pointer in pointers]


@pytest.mark.parametrize("given_value", ["high", [1, 2], True, float("nan"), float("inf")])
def test_what_is_neither_number_nor_ramp_is_refused(given_value: Any) -> None:
    """Anything else is a fault of the place, without a word about the forms it was tried as."""
    assert faults("penalties", "r1_gamma", given_value) == ["/penalties/r1_gamma"]


@pytest.mark.parametrize("missing", ["start", "end"])
def test_a_ramp_has_both_ends(missing: str) -> None:
    """An end that is left out is pointed at."""
    ramp = {"start": 1.0, "end": 0.1}
    del ramp[missing]
    assert faults("penalties", "r1_gamma", ramp) == [f"/penalties/r1_gamma/{missing}"]


def test_a_config_with_ramps_survives_json() -> None:
    """Ramps come back as they were, through text and through a document, and are written as they are given."""
    ramps = {
        place: {"start": fine, "end": fine / 2, "over": 7, "hold": 0.5} for place, (fine, _, _) in SCHEDULED.items()
    }
    document = dict(DOCUMENT)
    for (section, name), ramp in ramps.items():
        document[section] = document.get(section, {}) | {name: ramp}
    config = catalog.parse_config(document)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    written = json.loads(config.model_dump_json())
    assert catalog.parse_config(written) == config
    assert {place: written[place[0]][place[1]] for place in ramps} == ramps


def test_the_interval_of_the_penalties_keeps_its_old_name() -> None:
    """Configs that say r1_every are read as `every`; what is written says `every`, and each name is checked."""
    assert parse("penalties", "r1_every", 4).penalties.every == parse("penalties", "every", 4).penalties.every == 4
    written = parse("penalties", "r1_every", 4).model_dump(mode="json")["penalties"]
    assert written["every"] == 4
    assert "r1_every" not in written
    assert faults("penalties", "every", 0) == ["/penalties/every"]
    assert faults("penalties", "r1_every", 0) == ["/penalties/every"]
