"""What all types share: times, safe text, JSON documents, list pages, errors."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 32
MAX_VALUES = 10_000  # of a request, at all levels together

Item = TypeVar("Item")


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(from_attributes=True)


class Body(BaseModel):
    """A part of a request: unknown keys are errors, so that a misspelt option is not silently left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def check_size(cls, value: Any) -> Any:
        """Refuse a huge document at once: to judge each of its values, and list what is wrong with each, would take seconds."""
        waiting, found = [value], 0
        while waiting:
            part = waiting.pop()
            inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
            found += len(inside)
            if found > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES} values in one request")
            waiting.extend(inside)
        return value


def as_time(value: Any) -> Any:
    """Seconds since the epoch, as the database keeps them, become a UTC time."""
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value


Time = Annotated[datetime, BeforeValidator(as_time)]


def check_text(value: str) -> str:
    """Refuse what no database can hold: NUL (PostgreSQL) and lone surrogates (UTF-8)."""
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("text may hold neither NUL nor lone surrogates")
    return value


def check_json(value: Any, depth: int = 0) -> Any:
    """Refuse a document that is nested too deep or that a database cannot hold: its text, and integers beyond 64 bits."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("an integer beyond 64 bits")
    elif isinstance(value, float) and not -float("inf") < value < float("inf"):
        raise ValueError("JSON knows neither NaN nor infinity")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_json(item, depth + 1)
    return value


Text = Annotated[str, AfterValidator(check_text)]
JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]
Metadata = Annotated[
    dict[Annotated[Text, Field(min_length=1, max_length=64)], Annotated[Text, Field(max_length=512)]],
    Field(max_length=16, description="Up to 16 pairs of text of your own."),
]


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first."""

    data: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last one.")


class Listing(BaseModel, Generic[Item]):
    """A list that comes whole."""

    data: list[Item]


class Failure(View):
    """Why work failed."""

    code: str
    message: str


class ProblemError(BaseModel):
    """One offending part of a request."""

    pointer: str = Field(description="A JSON pointer into the body, or to the parameter of that name.")
    location: Literal["body", "query", "path", "header"] = Field(
        serialization_alias="in", description="Where it stood."
    )
    detail: str


class Problem(BaseModel):
    """Every error, as `application/problem+json` (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:ganvil:problem:not_found",
                "title": "Not found",
                "status": 404,
                "code": "not_found",
                "detail": "There is no dataset 'digts'.",
                "instance": "/v1/datasets/digts",
                "request_id": "req_5f0c1b2a3d4e5f60",
            }
        }
    )

    type: str
    title: str
    status: int
    code: str = Field(description="Stable, for programs.")
    detail: str = Field(description="What was wrong and what to do about it.")
    instance: str = Field(description="The path that was asked for.")
    request_id: str = Field(description="As in the X-Request-Id header and the log.")
    errors: list[ProblemError] | None = None
    state: str | None = Field(None, description="With code `invalid_state`: the state that does not allow it.")


Responses = dict[int | str, dict[str, Any]]


def binary(media_type: str) -> Responses:
    """The answers of an operation that sends a file, which the client may hold already."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"content": content}, 304: {"description": "Unchanged"}}


def problems(*statuses: int) -> Responses:
    """The error answers of an operation, for its `responses`. Those that every operation may give are added by `app.http.openapi`."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase.capitalize()} for status in statuses}
