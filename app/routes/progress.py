"""What a job leaves behind while it trains: events, metrics, grids, checkpoints."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import formats, registry
from app.db import Database
from app.errors import NotFound
from app.http.answers import Whole, head_of, without_making
from app.http.deps import DatabaseDep, FilmsDep, FollowerDep, StorageDep, find_job
from app.http.downloads import not_modified
from app.http.idempotency import Created, OnceDep
from app.http.parameters import LATEST, CheckpointRef, Cursor, GridRef, JobRef, Limit
from app.http.routing import StrictRoute
from app.jobs import history
from app.paging import DEFAULT_LIMIT
from app.schemas.base import MAX_INTEGER, Page, Responses, binary, problems
from app.schemas.jobs import Checkpoint, EventKind, EventPage, Grid, Metrics
from app.schemas.models import ModelVersion, PublishRequest

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=StrictRoute)

FOLLOWED: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The stream has ended: all events of a finished job were received."},
}


@router.head("/jobs/{job}/events", include_in_schema=False)
@router.get(
    "/jobs/{job}/events",
    response_model=EventPage,
    responses=FOLLOWED | problems(404, 422),
    summary="Follow a job",
)
async def get_job_events(
    request: Request,
    job: JobRef,
    follower: FollowerDep,
    database: DatabaseDep,
    after: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Only events with a greater seq.")] = 0,
    kinds: Annotated[
        list[EventKind] | None, Query(alias="type", max_length=8, description="Only events of these kinds.")
    ] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_INTEGER, description="Goes before `after`.")] = None,
) -> Response:
    """As a JSON list, or as they happen with `Accept: text/event-stream`: `id` is the seq, `event` the kind, `data` the event.

    A stream ends when the job has. Reconnecting after that gives 204, at which a browser's EventSource stops.
    """
    after = after if last_event_id is None else last_event_id
    with_job = await run_in_threadpool(_job_id, database, job)
    stretch = await run_in_threadpool(follower.read, with_job, after, kinds)
    if "text/event-stream" not in request.headers.get("accept", ""):
        page = EventPage(data=stretch.events, next_cursor=str(stretch.position) if stretch.more else None)
        return JSONResponse(page.model_dump(mode="json"))
    if stretch.over and not stretch.events:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # nginx must not hold events back
    if request.method == "HEAD":
        return head_of(headers, "text/event-stream")
    return EventSourceResponse(follower.stream(with_job, after, kinds), headers=headers)


def _job_id(database: Database, ref: str) -> str:
    with database.reading() as session:
        return find_job(session, ref).id


@router.get("/jobs/{job}/metrics", responses=problems(404, 422), summary="Metrics of a job")
def get_job_metrics(
    job: JobRef,
    database: DatabaseDep,
    keys: Annotated[
        list[Annotated[str, Query(max_length=64)]] | None, Query(max_length=64, description="Only these columns.")
    ] = None,
    max_points: Annotated[int, Query(ge=2, le=history.MAX_POINTS, description="More are thinned out evenly.")] = 1000,
) -> Metrics:
    """Losses, logits, penalties and speed over `examples_seen`, and KID and what else the evaluations found, as columns of equal
    length.
    """
    with database.reading() as session:
        return Metrics(columns=history.metrics(session, find_job(session, job).id, keys, max_points))


@router.get("/jobs/{job}/grids", responses=problems(404, 422), summary="List pictures of progress")
def list_job_grids(
    job: JobRef, database: DatabaseDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Grid]:
    """Oldest first. Each shows the same seeds."""
    with database.reading() as session:
        job_id = find_job(session, job).id
        rows, next_cursor = history.grid_page(session, job_id, limit=limit, cursor=cursor)
    return Page(data=[Grid.of(job_id, row) for row in rows], next_cursor=next_cursor)


@router.head("/jobs/{job}/grids/{examples_seen}.png", include_in_schema=False)
@router.get(
    "/jobs/{job}/grids/{examples_seen}.png",
    response_class=Response,
    responses=binary("image/png") | problems(404, 422),
    summary="See progress",
)
def get_job_grid(
    request: Request, job: JobRef, examples_seen: GridRef, database: DatabaseDep, storage: StorageDep
) -> Response:
    """What the generator made of the job's fixed seeds after so many examples."""
    seen = None if examples_seen == LATEST else int(examples_seen)
    with database.reading() as session:
        chosen = history.grid(session, find_job(session, job).id, seen)
    if chosen is None:
        raise NotFound(f"There is no such grid: GET /v1/jobs/{job}/grids lists those that there are so far.")
    key = chosen.data["key"]
    headers = _headers(key)
    return not_modified(request, headers) or Response(storage.get_bytes(key), headers=headers, media_type="image/png")


@router.head("/jobs/{job}/timelapse.webp", include_in_schema=False)
@router.get(
    "/jobs/{job}/timelapse.webp",
    response_class=Response,
    responses=binary("image/webp") | problems(404, 422, 429),
    summary="See progress as a film",
)
async def get_job_timelapse(
    request: Request,
    job: JobRef,
    database: DatabaseDep,
    storage: StorageDep,
    films: FilmsDep,
    fps: Annotated[float, Query(ge=0.1, le=60, description="Pictures a second, to a tenth.")] = 8,
) -> Response:
    """The job's grids one after the other, as an animated WebP."""
    keys = await run_in_threadpool(_grid_keys, database, job)
    if not keys:
        raise NotFound(f"Job {job} has no grid yet: the first comes soon after training begins.")
    fps = round(fps, 1)
    headers = _headers(*keys, str(fps))
    if (known := without_making(request, headers, "image/webp")) is not None:
        return known

    def encode() -> bytes:
        shown = history.thinned(keys, formats.film_frames(storage.get_bytes(keys[-1])))
        return formats.timelapse(map(storage.get_bytes, shown), fps)

    film = await films.get(headers["ETag"], lambda: films.encode(encode))
    return Whole(film, headers=headers, media_type="image/webp")


def _grid_keys(database: Database, ref: str) -> list[str]:
    with database.reading() as session:
        return [grid.data["key"] for grid in history.grids(session, find_job(session, ref).id)]


def _headers(*names: str) -> dict[str, str]:
    """Storage keys are never used twice, so their names stand for their contents."""
    etag = hashlib.sha256("\n".join(names).encode()).hexdigest()[:40]
    return {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}


@router.get("/jobs/{job}/checkpoints", responses=problems(404, 422), summary="List checkpoints")
def list_job_checkpoints(
    job: JobRef, database: DatabaseDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Checkpoint]:
    """Newest first. The id of one can be sampled from, also while the job trains."""
    with database.reading() as session:
        rows, next_cursor = history.checkpoint_page(session, find_job(session, job).id, limit=limit, cursor=cursor)
        return Page(data=[Checkpoint.of(row) for row in rows], next_cursor=next_cursor)


@router.post(
    "/checkpoints/{checkpoint}/publish",
    status_code=201,
    response_model=ModelVersion,
    responses=problems(404, 409, 422),
    summary="Publish a checkpoint",
)
def publish_checkpoint(
    checkpoint: CheckpointRef, body: PublishRequest, database: DatabaseDep, once: OnceDep
) -> JSONResponse:
    """Makes its snapshot the next version of a model, beside what the job publishes by itself."""
    with database.writing() as session:
        return once.answer(session, body.model_dump(mode="json"), lambda: _publish(session, checkpoint, body.model))


def _publish(session: Session, ref: str, model: str | None) -> Created:
    checkpoint = _newest_checkpoint(session) if ref == LATEST else ref
    view = ModelVersion.of(registry.publish_checkpoint(session, checkpoint, model))
    return Created(201, view, f"/v1/models/{view.ref}")


def _newest_checkpoint(session: Session) -> str:
    job = find_job(session, LATEST)
    found = history.checkpoints(session, job.id)
    if not found:
        raise NotFound(f"The newest job, {job.id}, has no checkpoint yet.")
    return found[0].id
