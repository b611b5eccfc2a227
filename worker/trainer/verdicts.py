"""How a run is doing, in one word, the figures behind it and a sentence that a person understands. Pure functions.

    diverged    the numbers blew up (looked for at every tick)
    collapsed   the generator makes the same few images whatever its z
    plateaued   more training of this kind no longer brings the samples closer to the data
    healthy     none of these

What training is judged by must never call a healthy run sick, so each bound lies far from what healthy runs show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.config import Stopping
from worker.trainer.failure import Diverged

# Healthy logits stay within some tens; those of the Wasserstein game, which nothing bounds, within some thousands.
MOST = {"logits_real": 1e5, "logits_fake": 1e5, "r1": 1e9, "r2": 1e9}
# The root mean square of weights begins at a few tenths at most. Under normalisation no logit tells when they blow up, and in the
# long run they drift by about the learning rate times the root of the steps, which is healthy up to this rate.
MOST_WEIGHT, DRIFT = 1.0, 5e-3
LEAST_SPREAD = 0.1  # of samples, as a share of that of real images
LEAST_SPREAD_OF_DOUBLES = 0.3  # where nearly all samples have a double; of simple images, these alone say little
MOST_DUPLICATES = 0.9
LEARNED = 10_000  # examples; a generator that saw fewer has not come to differ yet, and is not called collapsed
LEAST_GAIN = 0.02  # by which KID must become smaller to count as better

ADVICE = {
    "adversarial": "Raise penalties.r1_gamma, lower optimizer.generator_lr and optimizer.discriminator_lr, or try another loss or seed.",
    "variational": "Lower network.beta or optimizer.generator_lr, or try another seed.",
}
GENTLER = {
    "adversarial": "half the learning rates and twice the penalties",
    "variational": "half the learning rates",
}

Report = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    verdict: str
    message: str
    figures: dict[str, Any] = field(default_factory=dict)


def check_tick(means: dict[str, float], steps: float) -> None:
    """Raises Diverged if the numbers since the last tick, or the weights after so many steps, blew up."""
    figures: dict[str, float | None] = {
        name: number if math.isfinite(number) else None for name, number in means.items()
    }
    if None in figures.values():
        raise Diverged("the networks no longer hold finite numbers", figures)
    most_weight = max(MOST_WEIGHT, DRIFT * math.sqrt(steps))
    for name, most in (MOST | dict.fromkeys(("weights_g", "weights_d"), most_weight)).items():
        if abs(means.get(name, 0.0)) > most:
            raise Diverged(f"{name} grew to {means[name]:.3g}", figures)


def judge(reports: Sequence[Report], stopping: Stopping, advice: str) -> Verdict:
    """The verdict on a run with these evaluations (at least one), oldest first, and the advice for its kind."""
    if is_collapsed(reports[-1]):
        return _collapsed(reports[-1], advice)
    return _plateaued(reports, stopping) or _healthy(reports[-1])


def should_end(reports: Sequence[Report], stopping: Stopping) -> bool:
    """Whether the run has what its user wanted before its budget is used up, or no longer gets nearer to it, collapsed or not."""
    report = reports[-1]
    reached = stopping.kid is not None and report["kid"] is not None and report["kid"] <= stopping.kid
    if reached or not stopping.on_plateau:
        return reached
    converged = within_floor(report) and not is_collapsed(report)
    return converged or _no_longer_better(reports, stopping) is not None


def is_collapsed(report: Report) -> bool:
    """Whether the samples of a generator that has learned for a while are all alike."""
    spread, duplicates = report["spread"], report["duplicates"]
    least = LEAST_SPREAD_OF_DOUBLES if (duplicates or 0) > MOST_DUPLICATES else LEAST_SPREAD
    return spread is not None and spread < least and report["examples_seen"] >= LEARNED


def _collapsed(report: Report, advice: str) -> Verdict:
    spread, duplicates = report["spread"], report["duplicates"]
    return Verdict(
        "collapsed",
        f"The samples have become alike: they differ from one another {spread:.0%} as much as the real images do, and"
        f" {duplicates or 0:.0%} of them have a double. {advice}",
        {"spread": spread, "duplicates": duplicates, "coverage": report["coverage"]},
    )


def _plateaued(reports: Sequence[Report], stopping: Stopping) -> Verdict | None:
    return _of_one_image(reports[-1]) or _no_longer_better(reports, stopping)


def _of_one_image(report: Report) -> Verdict | None:
    if report["spread"] is not None or report.get("nearest"):  # both compare with how images differ
        return None
    message, kid = "All real images are the same, so there is nothing to learn but this one", report["kid"]
    if kid is None:
        return Verdict("plateaued", f"{message}.")
    return Verdict("plateaued", f"{message}: KID tells how near the samples are to it.", {"kid": kid})


def _no_longer_better(reports: Sequence[Report], stopping: Stopping) -> Verdict | None:
    kids = [report["kid"] for report in reports if report["kid"] is not None and _alike(report, reports[-1])]
    before, late = kids[: -stopping.patience], kids[-stopping.patience :]
    if not before or min(late) < min(before) - LEAST_GAIN * abs(min(before)):
        return None
    message = f"KID has not become better than {min(before):.5f} in the last {stopping.patience} evaluations."
    return Verdict("plateaued", message, {"kid": kids[-1], "best_kid": min(kids), "patience": stopping.patience})


def _alike(one: Report, other: Report) -> bool:
    """Whether both were measured in the same features: a run may have moved to a machine that has others."""
    return bool(one.get("features") == other.get("features"))


def _healthy(report: Report) -> Verdict:
    figures = {name: report[name] for name in ("kid", "coverage", "spread", "duplicates")}
    if within_floor(report):
        message = "KID is no higher than that of real images, and cannot show anything better."
        return Verdict("healthy", message, figures | {"kid_floor_high": report["kid_floor_high"]})
    if report["examples_seen"] < LEARNED:
        return Verdict("healthy", f"Too early to tell: few generators show much before {LEARNED:,} examples.", figures)
    return Verdict(
        "healthy", "Nothing is wrong. How near the samples come to the data is told by KID and coverage.", figures
    )


def within_floor(report: Report) -> bool:
    """Whether the samples are as close to the data as other real images are, as far as KID can tell."""
    kid, floor = report["kid"], report["kid_floor_high"]
    return kid is not None and floor is not None and kid <= floor
