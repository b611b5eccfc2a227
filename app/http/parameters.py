"""The path and query parameters, each once: what it may be, what it means and an example that works in Swagger UI."""

from typing import Annotated, Any

from fastapi import Header, Path, Query

from app.paging import MAX_LIMIT
from app.schemas.models import REF_DESCRIPTION, REF_PATTERN
from models import config

LATEST = "latest"
NAME_OR_ID = r"^[A-Za-z0-9._-]{1,100}$"
ID = r"^[A-Za-z0-9_]{1,40}$"

DEADLINE_HEADER = "X-Deadline-Seconds"
MIN_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS = 0.001, 600
MAX_CLASS_NAME = 200  # characters
SEEDS: dict[str, Any] = {"pattern": "^[0-9, -]*$"}  # for the document; what is wrong with others, `parse` says better
UNCHANGED = {"description": "If-None-Match names it: nothing was made."}


def _in_path(description: str, pattern: str | None, example: str | int) -> Any:
    return Path(description=description, pattern=pattern, openapi_examples={str(example): {"value": example}})


DatasetRef = Annotated[str, _in_path("Id or name of a data set.", NAME_OR_ID, "digits")]
JobRef = Annotated[str, _in_path("Id of a job; `latest` is the newest one.", ID, LATEST)]
GridRef = Annotated[
    str, _in_path("Of one of the listed grids; `latest` is the newest one.", r"^(latest|[0-9]{1,18})$", LATEST)
]
CheckpointRef = Annotated[
    str, _in_path("Id of a checkpoint; `latest` is the newest one of the newest job.", ID, LATEST)
]
BatchRef = Annotated[str, _in_path("Id of a batch; `latest` is the newest one.", ID, LATEST)]
ModelRef = Annotated[str, _in_path(REF_DESCRIPTION, REF_PATTERN, "digits")]
ModelName = Annotated[str, _in_path("Name of a model.", NAME_OR_ID, "digits")]
AliasName = Annotated[
    str, _in_path("`prod`, say; not `latest`, which the bare name means.", r"^[A-Za-z0-9._-]{1,40}$", "prod")
]
Seed = Annotated[config.Seed, _in_path("A seed is an address: it always gives the same sample.", None, 7)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many to list.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]
Deadline = Annotated[
    float | None,
    Header(
        alias=DEADLINE_HEADER,
        ge=MIN_DEADLINE_SECONDS,
        le=MAX_DEADLINE_SECONDS,
        description="How long the answer is of use. A request that cannot be done by then is refused at once (429), one that is not "
        "done by then is dropped (504).",
    ),
]
ClassQuery = Annotated[
    str | None,
    Query(
        alias="class",
        max_length=MAX_CLASS_NAME,
        description="A class by its name or, when none is called so, by its index. "
        "Without it a conditional model takes the class that the seed stands for.",
    ),
]
Truncation = Annotated[
    float, Query(gt=0, le=1, description="Draws z towards its mean: less variety, more typical samples.")
]
