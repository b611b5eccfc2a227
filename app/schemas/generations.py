"""Samples on the wire."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StrictInt, StrictStr

from app.formats import BY_SPELLING, FORMATS
from app.sampling.seeds import MOST_CHARACTERS
from app.schemas.base import MAX_INTEGER, Body, View
from app.schemas.models import REF_DESCRIPTION, REF_PATTERN
from models.config import Seed


def known_format(name: str) -> str:
    """The name of what is called so in the table of formats. Raises ValueError."""
    if name not in BY_SPELLING:
        raise ValueError(f"unknown format {name!r}; there are {', '.join(FORMATS)}")
    return BY_SPELLING[name].name


FormatName = Annotated[str, AfterValidator(known_format), Field(json_schema_extra={"enum": list(BY_SPELLING)})]
ClassName = Annotated[StrictStr, Field(max_length=200)] | Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER)]


SeedsGiven = Annotated[list[Seed], Field(fail_fast=True)] | Annotated[str, Field(max_length=MOST_CHARACTERS)]


class GenerationRequest(Body):
    """Which samples. With `seed` and `n`: the seeds seed .. seed + n - 1; without seeds the server draws them, below 2^53."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "digits", "n": 4, "seed": 0}})

    model: str = Field(pattern=REF_PATTERN, description=REF_DESCRIPTION)
    n: int | None = Field(None, ge=1, le=MAX_INTEGER, description="How many; 1 unless `seeds` are given.")
    seed: Seed | None = Field(None, description="The first seed.")
    seeds: SeedsGiven | None = Field(
        None, description="A list of seeds, or text such as `0-63,70`; in place of `seed` and `n`."
    )
    z: Annotated[list[list[float]], Field(fail_fast=True)] | Annotated[str, Field(max_length=2**20)] | None = Field(
        None,
        description="In place of seeds: the latent vectors themselves, as lists of numbers or as base64 of an npz with an array `z`, "
        "float32 [n, z_dim]. A conditional model needs `class` or `classes` beside it.",
    )
    class_: ClassName | None = Field(
        None,
        alias="class",
        description="For all samples: a class by its name or, when none is called so, by its index. "
        "Without it a conditional model takes the class that each seed stands for.",
    )
    classes: Annotated[list[ClassName], Field(fail_fast=True)] | None = Field(
        None, description="One class for each seed, in place of `class`."
    )
    truncation: float = Field(
        1.0, gt=0, le=1, description="Draws z towards its mean: less variety, more typical samples."
    )
    format: FormatName | None = Field(
        None, description="Of each file: png unless this or Accept names another; jpg is jpeg."
    )
    quality: int | None = Field(None, ge=1, le=100, description="Of jpg, webp and avif: 100 loses least.")
    lossless: bool | None = Field(None, description="Of webp: whether every pixel is kept, as it is without a quality.")
    scale: int = Field(1, ge=1, le=32, description="Repeats each pixel so often across and down, for small samples.")
    layout: Literal["separate", "grid"] | None = Field(
        None,
        description="`grid` puts all samples into one picture, which is how `Accept: image/*` answers more than one.",
    )
    columns: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="How many samples a row of a grid has; by default as many as make it about square.",
    )
    labels: bool = Field(False, description="Writes its class and its seed under each sample of a grid.")
    return_z: bool = Field(False, description="Whether each sample comes with its latent vector, after truncation.")


class Sample(View):
    """One sample: its address and, unless a grid was asked for, its bytes."""

    seed: int | None = Field(description="None where the request brought its own z.")
    class_: str | None = Field(serialization_alias="class", validation_alias="class")
    data: str | None = Field(description="Base64 of the file.")
    z: str | None = Field(
        None, description="With return_z: base64 of its z_dim values, float32 in little-endian order."
    )


class Generation(View):
    """The JSON answer."""

    model: str = Field(description="The lasting name of what made them, such as `digits:3`.")
    truncation: float
    media_type: str = Field(description="Of each file.")
    shape: list[int] = Field(description="Of the pixels of each sample: height, width, channels.")
    samples: list[Sample]
    grid: str | None = Field(description="Base64 of the one picture, with layout `grid`.")
