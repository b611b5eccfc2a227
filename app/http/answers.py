"""What the routes that make samples share: finding the model, caching headers, clients that hang up."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from app import registry
from app.db import Database
from app.registry import Resolved
from app.settings import Settings

CLIENT_CLOSED_REQUEST = 499  # nobody is there to read it
YEAR_SECONDS = 31_536_000


async def resolve(database: Database, ref: str) -> Resolved:
    """What `ref` means now; no connection is held afterwards. Raises NotFound, Gone, InvalidState."""

    def read() -> Resolved:
        with database.reading() as session:
            return registry.resolve(session, ref)

    return await run_in_threadpool(read)


def cache_headers(resolved: Resolved, settings: Settings, etag: str) -> dict[str, str]:
    """Headers of something that `etag` names: for ever when the reference is pinned, to be asked again when it may move.

    Where keys are asked for, no shared cache may keep it.
    """
    scope = "private" if settings.api_keys else "public"
    lasting = f"{scope}, max-age={YEAR_SECONDS}, immutable"
    moving = "private, no-cache" if settings.api_keys else "no-cache"
    return {
        "ETag": etag,
        "Cache-Control": lasting if resolved.pinned else moving,
        "X-Model-Version": resolved.label,
    }


def sample_headers(seed: int, class_name: str | None) -> dict[str, str]:
    """The address of one sample; a class name is percent-encoded, for headers know only ASCII."""
    return {"X-Seed": str(seed)} | ({} if class_name is None else {"X-Class": quote(class_name)})


def head_of(headers: dict[str, str], media_type: str) -> Response:
    """The answer to HEAD. It tells no length, which is known only once the thing is made."""
    response = Response(headers=headers, media_type=media_type)
    del response.headers["Content-Length"]
    return response


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes, which is cancelled when the client hangs up: its place in the queue becomes free."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_client_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _client_left(request: Request) -> None:
    """Ends when the client hangs up; the request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
