"""The path and query parameters, each once: what it may be, what it means and an example that works in Swagger UI."""

from typing import Annotated

from fastapi import Path, Query

from app.paging import MAX_LIMIT
from app.schemas.models import REF_DESCRIPTION, REF_PATTERN
from models import config

LATEST = "latest"
NAME_OR_ID = r"^[A-Za-z0-9._-]{1,100}$"

DatasetRef = Annotated[
    str,
    Path(
        description="Id or name of a data set.",
        pattern=NAME_OR_ID,
        openapi_examples={"digits": {"value": "digits"}},
    ),
]
JobRef = Annotated[
    str,
    Path(
        description="Id of a job; `latest` is the newest one.",
        pattern=r"^[A-Za-z0-9_]{1,40}$",
        openapi_examples={"latest": {"value": LATEST}},
    ),
]
GridRef = Annotated[
    str,
    Path(
        description="Of one of the listed grids; `latest` is the newest one.",
        pattern=r"^(latest|[0-9]{1,18})$",
        openapi_examples={"latest": {"value": LATEST}},
    ),
]
CheckpointRef = Annotated[
    str,
    Path(
        description="Id of a checkpoint; `latest` is the newest one of the newest job.",
        pattern=r"^[A-Za-z0-9_]{1,40}$",
        openapi_examples={"latest": {"value": LATEST}},
    ),
]
ModelRef = Annotated[
    str,
    Path(
        description=REF_DESCRIPTION,
        pattern=REF_PATTERN,
        openapi_examples={"digits": {"value": "digits"}},
    ),
]
ModelName = Annotated[
    str,
    Path(
        description="Name of a model.",
        pattern=NAME_OR_ID,
        openapi_examples={"digits": {"value": "digits"}},
    ),
]
AliasName = Annotated[
    str,
    Path(
        description="`prod`, say; not `latest`, which the bare name means.",
        pattern=r"^[A-Za-z0-9._-]{1,40}$",
        openapi_examples={"prod": {"value": "prod"}},
    ),
]
Seed = Annotated[
    config.Seed,
    Path(
        description="A seed is an address: it always gives the same sample.",
        openapi_examples={"7": {"value": 7}},
    ),
]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many to list.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]
