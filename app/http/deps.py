"""What routes are handed: the parts that `app.main` made, and who calls.

A transaction is opened by the route itself, as `with database.writing() as session`, and not by a dependency: that would hold a
thread of the pool while it waits for SQLite's write lock, and enough waiting writers would leave none to the one that has it.
The block ends, and commits, before the answer is sent: 201 means committed.
"""

from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app import jobs, tables
from app.db import Database
from app.errors import NotFound
from app.http.auth import Caller
from app.http.events import Follower
from app.http.films import Films
from app.http.parameters import LATEST
from app.queue import Bell
from app.sampling import Sampler
from app.settings import Settings
from app.storage import Storage


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


async def _films(request: Request) -> Films:
    found: Films = request.app.state.films
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
FilmsDep = Annotated[Films, Depends(_films)]
SamplerDep = Annotated[Sampler, Depends(_sampler)]
CallerDep = Annotated[Caller, Depends(_caller)]


def find_job(session: Session, ref: str) -> tables.Job:
    """The job with this id, or the newest one for `latest`. Raises NotFound."""
    if ref != LATEST:
        return jobs.get(session, ref)
    newest, _ = jobs.list_jobs(session, limit=1)
    if not newest:
        raise NotFound("There is no job yet: POST /v1/jobs submits one.")
    return newest[0]
