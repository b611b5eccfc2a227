"""What a job leaves behind while it trains: events, metrics, grids, checkpoints."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from app import formats, history, registry, tables
from app.deps import LATEST, DatabaseDep, FollowerDep, JobRef, StorageDep, find_job
from app.downloads import not_modified
from app.errors import NotFound
from app.idempotency import Created, OnceDep
from app.schemas.base import MAX_INTEGER, Listing, Responses, binary, problems
from app.schemas.jobs import Checkpoint, EventKind, EventPage, Grid, Metrics
from app.schemas.models import ModelVersion, PublishRequest

router = APIRouter(prefix="/v1", tags=["jobs"])

MAX_FRAMES = 240
FOLLOWED: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The stream has ended: all events of a finished job were received."},
}

CheckpointRef = Annotated[
    str,
    Path(
        description="Id of a checkpoint; `latest` is the newest one of the newest job.",
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
    return EventSourceResponse(follower.stream(with_job, after, kinds), headers=headers)


def _job_id(database: Any, ref: str) -> str:
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
    """Losses, logits, penalties and speed over `examples_seen`, as columns of equal length."""
    with database.reading() as session:
        return Metrics(columns=history.metrics(session, find_job(session, job).id, keys, max_points))


@router.get("/jobs/{job}/grids", responses=problems(404, 422), summary="List pictures of progress")
def list_job_grids(job: JobRef, database: DatabaseDep) -> Listing[Grid]:
    """Oldest first. Each shows the same seeds."""
    with database.reading() as session:
        job_id = find_job(session, job).id
        rows = history.grids(session, job_id)
    return Listing(data=[Grid.of(job_id, row) for row in rows])


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
    grids = _grids(database, job)
    chosen = grids[-1:] if examples_seen == LATEST else [g for g in grids if g.examples_seen == int(examples_seen)]
    if not chosen:
        raise NotFound(f"There is no such grid: GET /v1/jobs/{job}/grids lists those that there are so far.")
    key = chosen[0].data["key"]
    headers = _headers(key)
    return not_modified(request, headers) or Response(storage.get_bytes(key), headers=headers, media_type="image/png")


@router.get(
    "/jobs/{job}/timelapse.webp",
    response_class=Response,
    responses=binary("image/webp") | problems(404, 422),
    summary="See progress as a film",
)
def get_job_timelapse(
    request: Request,
    job: JobRef,
    database: DatabaseDep,
    storage: StorageDep,
    fps: Annotated[float, Query(ge=0.1, le=60, description="Pictures a second.")] = 8,
) -> Response:
    """The job's grids one after the other, as an animated WebP."""
    grids = _grids(database, job)
    if not grids:
        raise NotFound(f"Job {job} has no grid yet: the first comes soon after training begins.")
    step = max(1, -(-len(grids) // MAX_FRAMES))
    keys = [grid.data["key"] for grid in [*grids[:-1:step], grids[-1]]]
    headers = _headers(*keys, str(fps))
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    film = formats.timelapse([storage.get_bytes(key) for key in keys], fps)
    return Response(film, headers=headers, media_type="image/webp")


def _grids(database: Any, ref: str) -> Sequence[tables.Event]:
    with database.reading() as session:
        return history.grids(session, find_job(session, ref).id)


def _headers(*names: str) -> dict[str, str]:
    """Storage keys are never used twice, so their names stand for their contents."""
    etag = hashlib.sha256("\n".join(names).encode()).hexdigest()[:40]
    return {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}


@router.get("/jobs/{job}/checkpoints", responses=problems(404, 422), summary="List checkpoints")
def list_job_checkpoints(job: JobRef, database: DatabaseDep) -> Listing[Checkpoint]:
    """Newest first. The id of one can be sampled from, also while the job trains."""
    with database.reading() as session:
        rows = history.checkpoints(session, find_job(session, job).id)
        return Listing(data=[Checkpoint.of(row) for row in rows])


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

    def publish() -> Created:
        checkpoint_id = _newest_checkpoint(session) if checkpoint == LATEST else checkpoint
        view = ModelVersion.of(registry.publish_checkpoint(session, checkpoint_id, body.model))
        return Created(201, view, f"/v1/models/{view.ref}")

    with database.writing() as session:
        return once.answer(session, body.model_dump(mode="json"), publish)


def _newest_checkpoint(session: Any) -> str:
    job = find_job(session, LATEST)
    found = history.checkpoints(session, job.id)
    if not found:
        raise NotFound(f"The newest job, {job.id}, has no checkpoint yet.")
    return found[0].id
