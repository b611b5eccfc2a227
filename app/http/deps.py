"""What routes are handed: the parts that `app.main` made, and who calls.

A transaction is opened by the route itself, as `with database.writing() as session`, and not by a dependency: that would hold a
thread of the pool while it waits for SQLite's write lock, and enough waiting writers would leave none to the one that has it.
The block ends, and commits, before the answer is sent: 201 means committed.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app import tables
from app.db import Database
from app.errors import NotFound
from app.exporting import Exporter
from app.http.auth import Caller
from app.http.events import Follower
from app.http.films import Films
from app.http.parameters import LATEST
from app.http.references import References
from app.jobs import history
from app.queue import Bell
from app.sampling import Sampler, Sent
from app.sampling.keeping import Keeper
from app.settings import Settings
from app.storage import Storage


def _part(name: str) -> Any:
    """The dependency on what `app.main` keeps as `app.state.<name>`. Async, so that it costs no thread of the pool."""

    async def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(find)


async def _caller(request: Request) -> Caller:
    found: Caller = request.state.caller
    return found


async def _sent() -> AsyncIterator[Sent]:
    """Ends when the answer was sent, or there will be none."""
    with Sent() as sent:
        yield sent


SettingsDep = Annotated[Settings, _part("settings")]
DatabaseDep = Annotated[Database, _part("database")]
StorageDep = Annotated[Storage, _part("storage")]
BellDep = Annotated[Bell, _part("bell")]
FollowerDep = Annotated[Follower, _part("follower")]
FilmsDep = Annotated[Films, _part("films")]
ExporterDep = Annotated[Exporter, _part("exporter")]
ReferencesDep = Annotated[References, _part("references")]
SamplerDep = Annotated[Sampler, _part("sampler")]
KeeperDep = Annotated[Keeper, _part("keeper")]
CallerDep = Annotated[Caller, Depends(_caller)]
SentDep = Annotated[Sent, Depends(_sent, scope="request")]


def find_job(session: Session, ref: str) -> tables.Job:
    """The job with this id, or the newest one for `latest`. Raises NotFound."""
    if ref != LATEST:
        return history.get(session, ref)
    newest, _ = history.list_jobs(session, limit=1)
    if not newest:
        raise NotFound("There is no job yet: POST /v1/jobs submits one.")
    return newest[0]
