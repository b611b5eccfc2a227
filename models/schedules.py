"""Numbers that change while training goes on, as pure functions of the examples seen. Torch-free.

A scheduled number is a plain one, or a ramp from one to another, which waits and then goes along half a cosine wave:

    v(t) = start + (end - start) (1 - cos(pi s)) / 2,    s = (t / over - hold) / (1 - hold), kept between 0 and 1
"""

import math
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

# As what a value was read: no part of the place where a fault lies, and no name of a field.
TAGS = ("(number)", "(ramp)")
Number = TypeVar("Number")

Gamma = Annotated[float, Field(ge=0, le=1e6)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Ramp(BaseModel, Generic[Number]):
    """From `start` to `end` over so many examples, of which the share `hold` passes at the start; `over` null is the whole run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    start: Number
    end: Number
    over: int | None = Field(None, ge=1, le=10**12)
    hold: float = Field(0.0, ge=0, lt=1)


def _tag(given: Any) -> str:
    return TAGS[isinstance(given, dict | Ramp)]


# Names of their own, for the document of the API.
class GammaRamp(Ramp[Gamma]): ...


class RateRamp(Ramp[LearningRate]): ...


class BetaRamp(Ramp[Beta]): ...


class ShareRamp(Ramp[Share]): ...


NUMBER, RAMP, NUMBER_OR_RAMP = Tag(TAGS[0]), Tag(TAGS[1]), Discriminator(_tag)

ScheduledGamma = Annotated[Annotated[Gamma, NUMBER] | Annotated[GammaRamp, RAMP], NUMBER_OR_RAMP]
ScheduledRate = Annotated[Annotated[LearningRate, NUMBER] | Annotated[RateRamp, RAMP], NUMBER_OR_RAMP]
ScheduledBeta = Annotated[Annotated[Beta, NUMBER] | Annotated[BetaRamp, RAMP], NUMBER_OR_RAMP]
ScheduledShare = Annotated[Annotated[Share, NUMBER] | Annotated[ShareRamp, RAMP], NUMBER_OR_RAMP]


def value(scheduled: float | Ramp[float], examples_seen: int, examples_total: int | None) -> float:
    """The number after so many examples. While the length of the run is unknown, a ramp over the whole of it stays at its start."""
    if not isinstance(scheduled, Ramp):
        return scheduled
    over = scheduled.over or examples_total
    passed = examples_seen / over if over else 0.0
    share = min(max((passed - scheduled.hold) / (1 - scheduled.hold), 0.0), 1.0)
    return scheduled.start + (scheduled.end - scheduled.start) * (1 - math.cos(math.pi * share)) / 2


def largest(scheduled: float | Ramp[float]) -> float:
    """The largest that it ever is."""
    return max(scheduled.start, scheduled.end) if isinstance(scheduled, Ramp) else scheduled
