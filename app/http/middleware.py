"""What every request passes on its way in, as plain ASGI: an id and a line in the log, and a limit on its body."""

import asyncio
import logging
import re
import time
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import new_request_id

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

lines = logging.getLogger("ganvil.requests")
log = structlog.get_logger(lines.name)


class RequestContext:
    """Gives each request an id (the caller's own X-Request-Id if it is a sound one), answers with it and logs by it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500  # what the client gets when no answer begins

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = ((b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff"))
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        began = time.perf_counter()
        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if lines.isEnabledFor(logging.INFO):
                milliseconds = round((time.perf_counter() - began) * 1000, 1)
                log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, milliseconds=milliseconds
                )
            structlog.contextvars.reset_contextvars(**bound)


class BodyLimit:
    """Refuses a body that is too large, by its Content-Length before any of it is read, else by counting what arrives, and one
    that stops arriving: a client that keeps silent would hold its task, and the file of an upload, for ever.

    `limit(scope)` is the most bytes that this request may send, `idle_seconds` the longest silence.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[Scope], int], idle_seconds: float) -> None:
        self.app = app
        self.limit = limit
        self.idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limit(scope)
        declared = Headers(scope=scope).get("content-length", "")
        received = 0
        awaited = True  # what comes after the body, or after an answer that did without, is only the hanging up

        async def receive_within_limits() -> Message:
            nonlocal received, awaited
            if not awaited:
                return await receive()
            if declared.isdecimal() and int(declared[:20]) > limit:
                raise too_large(limit)
            try:
                async with asyncio.timeout(self.idle_seconds):
                    message = await receive()
            except TimeoutError as error:
                if not awaited:  # the answer began meanwhile
                    return await receive()
                raise too_slow(self.idle_seconds) from error
            received += len(message.get("body", b""))
            if awaited and received > limit:
                raise too_large(limit)
            awaited = awaited and message.get("more_body", False)
            return message

        async def send_unjudged(message: Message) -> None:
            nonlocal awaited
            awaited = False
            await send(message)

        await self.app(scope, receive_within_limits, send_unjudged)


def too_large(limit: int) -> HTTPException:
    """FastAPI lets an HTTPException pass while it reads a body; every other error would become a 400."""
    return HTTPException(413, f"The body is larger than the {limit} bytes that are allowed here.")


def too_slow(idle_seconds: float) -> HTTPException:
    """The rest of such a body must not be taken for the next request, so the connection ends with the answer."""
    detail = f"nothing came for {idle_seconds:g} s before the body was complete: send it again, without a pause"
    return HTTPException(408, detail, headers={"Connection": "close"})
