"""Data sets on the wire."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from app import datasets, names, tables
from app.schemas.base import Body, Failure, Text, Time, View

MIN_RESOLUTION, MAX_RESOLUTION = 4, 1024
Name = Annotated[Text, Field(max_length=100, json_schema_extra={"pattern": names.PATTERN})]  # judged by names.validate


class BuiltinSource(Body):
    """A data set that comes with Ganvil."""

    kind: Literal["builtin"]
    name: Annotated[Text, Field(max_length=100, description="`digits`: 1,797 handwritten digits in ten classes.")]


class ImportRequest(Body):
    """What to import."""

    model_config = ConfigDict(json_schema_extra={"example": {"source": {"kind": "builtin", "name": "digits"}}})

    source: BuiltinSource = Field(description="Where it comes from.")
    name: Name | None = Field(
        None,
        description="Without one, the source's, numbered when it is taken (`digits-2`); one of yours that is taken is a 409.",
    )


class UploadForm(Body):
    """The text fields of an upload; its file stands beside them."""

    model_config = ConfigDict(strict=False)

    name: Name | None = Field(
        None,
        description="Without one, the file's, numbered when it is taken (`cats-2`); one of yours that is taken is a 409.",
    )
    resolution: int | None = Field(
        None, ge=MIN_RESOLUTION, le=MAX_RESOLUTION, description="Height and width to bring every image to."
    )
    fit: datasets.Fit = Field("crop", description="How an image of other proportions is made to fit.")


class ClassCount(View):
    """A class and how many examples it has."""

    name: str
    count: int


class Dataset(View):
    """A data set: what it was made of, and, once it is `ready`, what is in it."""

    id: str
    name: str
    status: Literal["preparing", "ready", "failed"]
    source: dict[str, Any]
    options: dict[str, Any]
    examples: int | None
    classes: list[ClassCount] | None = Field(description="In label order; empty when the data is unlabelled.")
    channels: int | None
    height: int | None
    width: int | None
    resolution: int | None = Field(description="The longer side, in pixels.")
    sha256: str | None = Field(description="Of the prepared examples and labels.")
    report: dict[str, Any] | None = Field(description="What was skipped, duplicated, resized or converted.")
    error: Failure | None
    created_at: Time
    finished_at: Time | None

    @classmethod
    def of(cls, row: tables.Dataset) -> Self:
        shape = [side for side in (row.height, row.width) if side is not None]
        source = {key: value for key, value in row.source.items() if key != "key"}
        own = {"status": datasets.API_STATUS[row.status], "resolution": max(shape, default=None), "source": source}
        same = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        return cls.model_validate(same | own)
