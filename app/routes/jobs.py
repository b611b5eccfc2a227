"""Jobs: submit, look, steer."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import jobs, tables, workers
from app.db import Database
from app.http.clearing import clearing
from app.http.deps import BellDep, DatabaseDep, StorageDep, find_job
from app.http.dry_runs import dry_run as run_dry
from app.http.idempotency import Created, Once, OnceDep
from app.http.parameters import NAME_OR_ID, Cursor, JobRef, Limit
from app.http.routing import StrictRoute
from app.paging import DEFAULT_LIMIT
from app.queue import Bell
from app.schemas.base import Page, Responses, problems
from app.schemas.jobs import Job, JobPlan, JobRequest, JobUpdate, Status

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

PLANNED = {"dataset", "model", "preset", "config", "budget", "seed", "initial"}  # the rest changes nothing about a plan
PLAN: Responses = {200: {"model": JobPlan, "description": "The dry run"}}
VERB = problems(404, 409, 422)


@router.post(
    "",
    status_code=201,
    response_model=Job,
    responses=PLAN | problems(404, 409, 410, 422),
    summary="Submit a job",
)
async def submit_job(
    body: JobRequest,
    database: DatabaseDep,
    bell: BellDep,
    once: OnceDep,
    dry_run: Annotated[
        bool,
        Query(description="Submit nothing: answer with what the job would be, need and take, measured on a worker."),
    ] = False,
) -> JSONResponse:
    """Trains a model on a data set that is `ready`. The data set alone is enough; everything else has a default.

    The job is kept, and will run, also when no worker is there yet.

    A dry run waits up to ten seconds for a worker that builds the networks and trains a few steps. What nobody has measured
    by then is null, and `note` says why.
    """
    asked = body.model_dump(mode="json", exclude_none=True)
    if dry_run:
        planned = {name: asked[name] for name in asked.keys() & PLANNED}
        plan, estimate = await run_dry(database, bell, planned)
        return JSONResponse(JobPlan.of(plan, estimate).model_dump(mode="json"))
    response = await run_in_threadpool(_submit, database, once, asked)
    bell.ring("train")
    return response


def _submit(database: Database, once: Once, asked: dict[str, Any]) -> JSONResponse:
    with database.writing() as session:

        def create() -> Created:
            return _created(session, jobs.submit(session, **asked, hardware=workers.hardware(session)))

        return once.answer(session, asked, create)


def _created(session: Session, row: tables.Job) -> Created:
    return Created(201, _view(session, row), f"/v1/jobs/{row.id}")


def _view(session: Session, row: tables.Job) -> Job:
    return Job.of(row, jobs.queue_position(session, row))


@router.get("", responses=problems(422), summary="List jobs")
def list_jobs(
    database: DatabaseDep,
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
    model: Annotated[str | None, Query(pattern=NAME_OR_ID, description="Name of what they publish to.")] = None,
    dataset: Annotated[str | None, Query(pattern=NAME_OR_ID, description="Id or name of what they learn from.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Job]:
    """Newest first."""
    with database.reading() as session:
        filters = {"status": status, "model": model, "dataset": dataset}
        rows, next_cursor = jobs.list_jobs(session, **filters, limit=limit, cursor=cursor)
        positions = jobs.queue_positions(session, rows)
        return Page(data=[Job.of(row, positions.get(row.id)) for row in rows], next_cursor=next_cursor)


@router.get("/{job}", responses=problems(404, 422), summary="Look at a job")
def get_job(job: JobRef, database: DatabaseDep) -> Job:
    """Its status and progress, and its whole configuration."""
    with database.reading() as session:
        return _view(session, find_job(session, job))


@router.patch("/{job}", responses=problems(404, 409, 422), summary="Change a job")
def update_job(job: JobRef, body: JobUpdate, database: DatabaseDep, bell: BellDep) -> Job:
    """What is left out stays; `metadata` is replaced whole. A budget cannot change while the job runs: pause it first."""
    changes = body.model_dump(mode="json", exclude_none=True)
    return _change(database, bell, job, lambda session, job_id: jobs.update(session, job_id, **changes))


@router.delete("/{job}", status_code=204, responses=VERB, summary="Delete a job")
def delete_job(job: JobRef, database: DatabaseDep, bell: BellDep, storage: StorageDep) -> None:
    """With its events, grids and checkpoints, but without what was published from it. Not while it runs."""
    with database.writing() as session:
        job_id = find_job(session, job).id
        kept = jobs.delete(session, job_id)
    bell.notify(job_id)
    with clearing(job_id):
        storage.delete(key for key in storage.list(f"jobs/{job_id}") if key not in kept)


@router.post("/{job}/cancel", status_code=202, responses=VERB, summary="Cancel a job")
def cancel_job(job: JobRef, database: DatabaseDep, bell: BellDep) -> Job:
    """A running job stops at its worker's next look, with a checkpoint from which it can be retried."""
    return _change(database, bell, job, jobs.cancel)


@router.post("/{job}/pause", status_code=202, responses=VERB, summary="Pause a job")
def pause_job(job: JobRef, database: DatabaseDep, bell: BellDep) -> Job:
    """A running job checkpoints and gives its place to others; it goes on where it was when it is resumed."""
    return _change(database, bell, job, jobs.pause)


@router.post("/{job}/resume", status_code=202, responses=VERB, summary="Resume a job")
def resume_job(job: JobRef, database: DatabaseDep, bell: BellDep) -> Job:
    """Puts a paused job back into the queue."""
    return _change(database, bell, job, jobs.resume)


@router.post("/{job}/retry", status_code=202, responses=VERB | problems(410), summary="Retry a job")
def retry_job(job: JobRef, database: DatabaseDep, bell: BellDep) -> Job:
    """Puts a failed or cancelled job back into the queue, from its newest checkpoint."""
    return _change(database, bell, job, jobs.retry)


def _change(database: Database, bell: Bell, ref: str, change: Callable[[Session, str], tables.Job]) -> Job:
    with database.writing() as session:
        row = change(session, find_job(session, ref).id)
        view = _view(session, row)
    if row.status == "queued":
        bell.ring("train")
    bell.notify(row.id)
    return view
