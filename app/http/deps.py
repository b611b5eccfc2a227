"""What routes are handed: the parts that `app.main` made, who calls, and the parameters that many routes share.

A transaction is opened by the route itself, as `with database.writing() as session`, and not by a dependency: that would hold a
thread of the pool while it waits for SQLite's write lock, and enough waiting writers would leave none to the one that has it.
The block ends, and commits, before the answer is sent: 201 means committed.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from app import jobs, tables
from app.db import Database
from app.errors import NotFound
from app.http.auth import Caller
from app.http.events import Follower
from app.paging import MAX_LIMIT
from app.queue import Bell
from app.sampling import Sampler
from app.settings import Settings
from app.storage import Storage

LATEST = "latest"


async def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


async def _database(request: Request) -> Database:
    found: Database = request.app.state.database
    return found


async def _storage(request: Request) -> Storage:
    found: Storage = request.app.state.storage
    return found


async def _bell(request: Request) -> Bell:
    found: Bell = request.app.state.bell
    return found


async def _follower(request: Request) -> Follower:
    found: Follower = request.app.state.follower
    return found


async def _sampler(request: Request) -> Sampler:
    found: Sampler = request.app.state.sampler
    return found


async def _caller(request: Request) -> Caller:
    found: Caller = request.state.caller
    return found


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StorageDep = Annotated[Storage, Depends(_storage)]
BellDep = Annotated[Bell, Depends(_bell)]
FollowerDep = Annotated[Follower, Depends(_follower)]
SamplerDep = Annotated[Sampler, Depends(_sampler)]
CallerDep = Annotated[Caller, Depends(_caller)]

DatasetRef = Annotated[
    str,
    Path(
        description="Id or name of a data set.",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
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
ModelRef = Annotated[
    str,
    Path(
        description="`name` (its newest version), `name:3`, `name@alias`, a checkpoint's id, or a job's (its newest snapshot).",
        pattern=r"^[A-Za-z0-9._:@-]{1,160}$",
        openapi_examples={"digits": {"value": "digits"}},
    ),
]
ModelName = Annotated[
    str,
    Path(
        description="Name of a model.",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        openapi_examples={"digits": {"value": "digits"}},
    ),
]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many to list.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]


def find_job(session: Session, ref: str) -> tables.Job:
    """The job with this id, or the newest one for `latest`. Raises NotFound."""
    if ref != LATEST:
        return jobs.get(session, ref)
    newest, _ = jobs.list_jobs(session, limit=1)
    if not newest:
        raise NotFound("There is no job yet: POST /v1/jobs submits one.")
    return newest[0]
