"""Interpolations on the wire."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from app.formats.animations import ANIMATIONS, find_animation
from app.formats.films import MAX_FRAMES
from app.schemas.base import Body
from app.schemas.generations import ClassName
from app.schemas.models import REF_DESCRIPTION, REF_PATTERN
from models.config import Seed


def known_animation(name: str) -> str:
    """Refuse what is not in the table of animations."""
    find_animation(name)
    return name


AnimationName = Annotated[str, AfterValidator(known_animation), Field(json_schema_extra={"enum": list(ANIMATIONS)})]

SEEDS = "The stops, two or more, in this order: text such as `1,5,9` or `0-7`"
FRAMES = f"From one stop to the next. A film has at most {MAX_FRAMES} in all, the last stop's included, and fewer where they are large."
FPS = "Frames a second, to a tenth. A GIF counts in hundredths of a second, two at least."
LOOP = "Goes on from the last stop to the first, so that the film comes round without a jump; else the last frame stays for a second."
SCALE = "Repeats each pixel, for small samples."
DEFAULT_FRAMES = 30
MAX_STEPS = MAX_FRAMES - 1  # between two stops: the last one is a frame as well
DEFAULT_FPS = 15.0
MAX_SCALE = 32


class InterpolationRequest(Body):
    """Which way to go, and how to show it."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "digits", "seeds": [1, 2, 3], "frames": 12, "loop": True, "scale": 4}}
    )

    model: str = Field(pattern=REF_PATTERN, description=REF_DESCRIPTION)
    seeds: Annotated[list[Seed], Field(max_length=MAX_FRAMES)] | Annotated[str, Field(max_length=8192)] = Field(
        description=f"{SEEDS}, or a list."
    )
    class_: ClassName | None = Field(
        None,
        alias="class",
        description="For the whole way: a class by its name or, when none is called so, by its index. "
        "Without it a conditional model takes at each stop the class that its seed stands for, and between them mixtures.",
    )
    classes: Annotated[list[ClassName], Field(max_length=MAX_FRAMES)] | None = Field(
        None,
        description="One class for each seed, in place of `class`; between them the film shows mixtures of the two.",
    )
    truncation: float = Field(
        1.0, gt=0, le=1, description="Draws z towards its mean: less variety, more typical samples."
    )
    frames: int = Field(DEFAULT_FRAMES, ge=1, le=MAX_STEPS, description=FRAMES)
    fps: float = Field(DEFAULT_FPS, ge=0.1, le=60, description=FPS)
    loop: bool = Field(False, description=LOOP)
    format: AnimationName | None = Field(
        None, description="webp keeps every pixel; gif has 256 colours a frame. Without it Accept decides, webp first."
    )
    scale: int = Field(1, ge=1, le=MAX_SCALE, description=SCALE)
