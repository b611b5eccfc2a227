"""What a run's numbers are called, and what they must never be called."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import Stopping
from worker.trainer.failure import Diverged
from worker.trainer.verdicts import check_tick, judge, should_end

HEALTHY = {
    "examples_seen": 50_000,
    "kid": 0.02,
    "kid_floor_high": 0.001,
    "coverage": 0.8,
    "spread": 0.95,
    "duplicates": 0.01,
}
MEANS = {"loss_d": 1.2, "loss_g": 0.9, "logits_real": 1.5, "logits_fake": -1.5, "r1": 0.3}


def report(**changes: Any) -> dict[str, Any]:
    return HEALTHY | changes


def verdict(*reports: dict[str, Any], **stopping: Any) -> str:
    return judge(reports, Stopping(**stopping), "Try this.").verdict


@pytest.mark.parametrize("changes", [{"loss_d": math.nan}, {"loss_g": math.inf}, {"logits_real": 3e6}, {"r1": 1e12}])
def test_numbers_that_blow_up_are_a_divergence(changes: dict[str, float]) -> None:
    """NaN, infinity, and logits or penalties far from anything a healthy run shows; what JSON cannot hold becomes null."""
    with pytest.raises(Diverged) as caught:
        check_tick(MEANS | changes, 1000)
    assert all(number is None or math.isfinite(number) for number in caught.value.figures.values())


def test_weights_that_blow_up_are_a_divergence() -> None:
    """Also when the losses still look well, as they do under batch normalisation."""
    with pytest.raises(Diverged, match="finite"):
        check_tick(MEANS | {"weights_d": math.nan}, 1000)
    with pytest.raises(Diverged, match="weights_g grew to 40"):
        check_tick(MEANS | {"weights_g": 40.0}, 1000)
    check_tick(MEANS | {"weights_g": 4.0}, 1e6)  # where they may have drifted in a million steps


@given(st.dictionaries(st.sampled_from(sorted(MEANS)), st.floats(-5_000, 5_000)))
def test_logits_in_the_thousands_are_no_divergence(changes: dict[str, float]) -> None:
    """The Wasserstein game has such."""
    check_tick(MEANS | changes, 1000)


@pytest.mark.parametrize("changes", [{"spread": 0.0}, {"spread": 0.05}, {"spread": 0.2, "duplicates": 0.97}])
def test_samples_that_are_all_alike_are_a_collapse(changes: dict[str, float]) -> None:
    """By their distance from one another, or by that and their doubles; the figures are those that it was seen by."""
    found = judge([report(), report(**changes)], Stopping(), "Try this.")
    assert found.verdict == "collapsed"
    assert found.message.endswith("Try this.")
    assert found.figures.items() >= changes.items()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Nothing is wrong."),
        ({"examples_seen": 3_000}, "Too early to tell"),
        ({"kid": 0.0}, "KID is no higher"),
    ],
)
def test_a_healthy_run_is_not_praised_for_nothing(changes: dict[str, Any], sentence: str) -> None:
    """What is good is said only where KID says so, and of a run that has hardly begun nothing."""
    found = judge([report(**changes)], Stopping(), "Try this.")
    assert found.verdict == "healthy"
    assert found.message.startswith(sentence)


def test_what_has_not_learned_yet_is_not_called_collapsed() -> None:
    """The first samples of a run are always alike; that they may still be is said."""
    assert verdict(report(spread=0.01, examples_seen=3_000)) == "healthy"


def test_a_run_recovers() -> None:
    """Only the newest evaluation can call it collapsed."""
    assert verdict(report(spread=0.0), report()) == "healthy"


@given(
    st.lists(st.floats(0.3, 1.5), min_size=1, max_size=20), st.floats(0, 0.6), st.floats(0.0, 1.0), st.floats(0.05, 0.9)
)
def test_a_run_that_gets_better_is_healthy(
    spreads: list[float], duplicates: float, coverage: float, factor: float
) -> None:
    """Whatever its coverage: samples that differ, and a KID that falls from one evaluation to the next."""
    kids = [0.5 * factor**n + 0.0011 for n in range(min(len(spreads), 6))]
    reports = [
        report(kid=kid, spread=spread, duplicates=duplicates, coverage=coverage)
        for kid, spread in zip(kids, spreads, strict=False)
    ]
    assert verdict(*reports) == "healthy"


def test_kid_within_its_floor_is_healthy() -> None:
    """It is what training is for; the sentence says that there is nothing left which KID could measure."""
    found = judge([report(kid=0.0009)], Stopping(), "Try this.")
    assert found.verdict == "healthy"
    assert "cannot show anything better" in found.message


def test_kid_that_stays_where_it_is_is_a_plateau() -> None:
    """After as many evaluations as the patience says, and not before."""
    flat = [report(kid=0.02)] * 8
    assert verdict(*flat, patience=8) == "healthy"
    assert verdict(*flat, report(kid=0.0199), patience=8) == "plateaued"
    assert verdict(*flat, report(kid=0.01), patience=8) == "healthy"


def test_kid_in_other_features_is_another_number() -> None:
    """Where a run went on on a machine with other features, only what was measured in the present ones counts."""
    before, now = {"features": {"name": "inception"}}, {"features": {"name": "random"}}
    flat = [report(kid=0.02) | now] * 8
    assert verdict(report(kid=0.001) | before, *flat, patience=8) == "healthy"
    assert verdict(report(kid=0.001) | now, *flat, patience=8) == "plateaued"


def test_data_without_variety_is_a_plateau() -> None:
    """One image has no spread to compare with. That may also be for want of samples, of which memorisation takes one."""
    nothing = {"kid": None, "kid_floor_high": None, "spread": None, "duplicates": None}
    assert verdict(report(**nothing, nearest=[])) == "plateaued"
    assert verdict(report(**nothing, nearest=[{"sample": 0, "example": 3, "distance": 0.9}])) == "healthy"


def test_a_run_ends_early_only_when_its_user_said_so() -> None:
    """On a plateau or within KID's floor, or at a KID."""
    fine = [report(kid=0.0009)]
    assert not should_end(fine, Stopping())
    assert should_end(fine, Stopping(on_plateau=True))
    target = Stopping(kid=0.03)
    assert should_end([report()], target)
    assert not should_end([report(kid=0.05)], target)
    assert not should_end([report(kid=None)], target)


def test_one_image_takes_its_time_to_learn_too() -> None:
    """Its verdict stands from the first evaluation on; a run ends once KID no longer gets better."""
    only = {"spread": None, "duplicates": None, "nearest": [], "kid_floor_high": 0.0}
    kids = [report(**only, kid=6.0), *[report(**only, kid=0.5)] * 3]
    allowed = Stopping(on_plateau=True, patience=2)
    assert {judge(kids[:n], allowed, "").verdict for n in range(1, 5)} == {"plateaued"}
    assert [should_end(kids[:n], allowed) for n in range(1, 5)] == [False, False, False, True]


def test_a_collapsed_run_is_given_up_on_a_plateau_too() -> None:
    """It is called collapsed, however close its KID may be, and waited for as long as any other."""
    sick = [report(kid=0.0009, spread=0.01)] * 9
    allowed = Stopping(on_plateau=True, patience=8)
    assert judge(sick, allowed, "Try this.").verdict == "collapsed"
    assert not should_end(sick[:8], allowed)
    assert should_end(sick, allowed)
