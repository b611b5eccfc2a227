"""The web application: `uvicorn app.main:create_app --factory`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from app import docs, logs, problems
from app.auth import Authentication, check_bind
from app.db import Database
from app.docs import DocumentedAPI
from app.events import Follower
from app.middleware import BodyLimit, RequestContext
from app.queue import Bell
from app.routes import catalog, datasets, generations, jobs, models, operations, progress, samples
from app.sampling import Sampler
from app.settings import Settings, get_settings
from app.storage import Storage
from app.sweep import Sweeper
from app.uploads import clear_stale, incoming

ROUTERS = (datasets, jobs, progress, models, samples, generations, catalog, operations)
UPLOADS = "/v1/datasets"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; nothing is opened before it starts. Raises OpenToNetwork when it should listen to a network without keys."""
    if settings is None:  # the process is ours alone, and so is its log
        settings = get_settings()
        logs.configure(settings.log_level)
    check_bind(settings.host, settings.api_keys)
    app = DocumentedAPI(lifespan=lifespan)
    app.state.settings = settings
    app.state.under_way = set()
    for module in ROUTERS:
        app.include_router(module.router)
    docs.install(app)
    problems.install(app)

    def body_limit(scope: Scope) -> int:
        return settings.upload_limit_bytes if scope["path"] == UPLOADS else settings.body_limit_bytes

    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=body_limit)
    app.add_middleware(Authentication, api_keys=settings.api_keys)
    app.add_middleware(RequestContext)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens what routes are handed, and closes it in reverse."""
    settings: Settings = app.state.settings
    state = app.state
    state.database = Database(settings)
    state.storage = Storage(settings.storage_url)
    await run_in_threadpool(prepare, settings, state.database)
    state.bell = Bell(settings)
    state.sampler = Sampler(settings, state.storage)
    state.follower = Follower(state.database, settings)
    sweeper = Sweeper(state.database, state.bell, settings)
    sweeper.start()
    state.follower.start()
    try:
        yield
    finally:
        await state.follower.stop()
        for close in (sweeper.stop, state.sampler.close, state.bell.close, state.database.dispose):
            await run_in_threadpool(close)


def prepare(settings: Settings, database: Database) -> None:
    """Bring the database up to date and clear away what cut-off uploads left."""
    database.migrate()
    folder = incoming(settings)
    folder.mkdir(parents=True, exist_ok=True)
    clear_stale(folder)
