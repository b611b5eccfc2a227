"""The web application, which `python -m app` serves."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from app import interpreter, logs
from app.db import Database
from app.exporting import Exporter
from app.http import openapi, problems
from app.http.auth import Authentication, check_bind
from app.http.events import Follower
from app.http.express import Express
from app.http.films import Films
from app.http.middleware import BodyLimit, RequestContext
from app.http.openapi import DocumentedAPI
from app.http.references import References
from app.http.uploads import clear_stale, incoming
from app.queue import Bell
from app.routes import (
    batches,
    catalog,
    datasets,
    generations,
    inspections,
    interpolations,
    jobs,
    models,
    operations,
    progress,
    samples,
    signed_urls,
)
from app.sampling import Sampler
from app.sampling.keeping import Keeper
from app.settings import Settings, get_settings
from app.storage import Storage
from app.sweep import Sweeper

ROUTERS = (
    *(datasets, jobs, progress, models, samples, generations, interpolations, inspections),
    *(batches, signed_urls, catalog, operations),
)
UPLOADS = "/v1/datasets"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; nothing is opened before it starts. Raises OpenToNetwork when it should listen to a network without keys."""
    if settings is None:  # the process is ours alone, and so is its log
        settings = get_settings()
        logs.configure(settings.log_level)
        interpreter.tune()
    check_bind(settings.host, settings.api_keys)
    app = DocumentedAPI(lifespan=lifespan)
    app.state.settings = settings
    app.state.under_way = set()
    for module in ROUTERS:
        app.include_router(module.router)
    openapi.install(app)
    problems.install(app)

    uploads = {UPLOADS: settings.upload_limit_bytes, inspections.PATH: inspections.BODY_LIMIT_BYTES}

    def body_limit(scope: Scope) -> int:
        return uploads.get(scope["path"], settings.body_limit_bytes)

    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=body_limit, idle_seconds=settings.upload_idle_seconds)
    app.add_middleware(Express)
    app.add_middleware(Authentication, api_keys=settings.api_keys, signing_secret=settings.signing_secret)
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
    state.references = References(state.database)
    state.sampler = Sampler(settings, state.storage)
    state.keeper = Keeper(state.database, state.sampler, settings.sweep_seconds)
    state.exporter = Exporter(state.storage)
    state.films = Films()
    state.follower = Follower(state.database, settings)
    sweeper = Sweeper(state.database, state.bell, settings)
    sweeper.start()
    state.follower.start()
    state.keeper.start()
    try:
        with calling_at_stop(state.follower.end_streams):
            yield
    finally:
        state.keeper.stop()
        await state.follower.stop()
        for close in (sweeper.stop, state.sampler.close, state.bell.close, state.database.close):
            await run_in_threadpool(close)


@contextmanager
def calling_at_stop(call: Callable[[], None]) -> Iterator[None]:
    """Calls `call` in the event loop when SIGTERM or SIGINT asks the server to stop, and then does what the server would.

    The server ends the lifespan only when every response has ended, so the lifespan cannot end the endless ones.
    """
    if threading.current_thread() is not threading.main_thread():  # a server inside a program that has its own signals
        yield
        return
    loop = asyncio.get_running_loop()
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def stop(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        if callable(handler := before[signal.Signals(signum)]):
            handler(signum, frame)

    servers = [signum for signum, handler in before.items() if callable(handler)]
    for signum in servers:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in servers:
            signal.signal(signum, before[signum])


def prepare(settings: Settings, database: Database) -> None:
    """Bring the database up to date and clear away what cut-off uploads left."""
    database.migrate()
    folder = incoming(settings)
    folder.mkdir(parents=True, exist_ok=True)
    clear_stale(folder)
