"""Health, queue and workers."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app import health, workers
from app.http.deps import DatabaseDep, SettingsDep, StorageDep
from app.http.routing import StrictRoute
from app.jobs import history
from app.schemas.base import Listing
from app.schemas.operations import Live, Queue, Readiness, Worker

router = APIRouter(tags=["operations"], route_class=StrictRoute)
probes = APIRouter(tags=["operations"])  # which ask with whatever query their monitor adds


@probes.get("/health/live", summary="Is the process alive?")
async def get_live() -> Live:
    """Always 200; needs no key."""
    return Live()


@probes.get(
    "/health/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "The database or the storage is down"}},
    summary="Can it serve?",
)
def get_ready(database: DatabaseDep, storage: StorageDep, settings: SettingsDep) -> JSONResponse:
    """200 while the database and the storage answer: `ready`, or `degraded` without Redis, when jobs are still taken in but
    workers find them later. 503 `unready` otherwise. Needs no key.
    """
    states = health.components(database, storage, settings)
    status = health.status(states)
    view = Readiness(status=status, components=states)
    return JSONResponse(view.model_dump(), 503 if status == "unready" else 200)


@router.get("/v1/workers", summary="List workers")
def list_workers(database: DatabaseDep) -> Listing[Worker]:
    """Those that were heard of within the last minute."""
    with database.reading() as session:
        return Listing(data=[Worker.model_validate(row) for row in workers.list_workers(session)])


@router.get("/v1/queue", summary="See what waits")
def get_queue(database: DatabaseDep) -> Queue:
    """How much waits and runs, and who works."""
    with database.reading() as session:
        summary = history.queue_summary(session)
        found = workers.list_workers(session)
        return Queue(
            jobs=summary["counts"],
            oldest_queued_at=summary["waiting_since"],
            batches=summary["batches"],
            workers=len(found),
            slots=sum(worker.slots for worker in found),
            busy=sum(worker.busy for worker in found),
        )


router.include_router(probes)
