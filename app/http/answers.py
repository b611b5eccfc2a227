"""What the routes that make samples share: headers, answers for which nothing is made, clients that hang up or are slow to read."""

from collections.abc import Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.http.downloads import not_modified
from app.http.leaving import UnlessClientLeaves
from app.registry import Resolved
from app.settings import Settings

CLIENT_CLOSED_REQUEST = 499  # nobody is there to read it
YEAR_SECONDS = 31_536_000
SLICE_BYTES = 2**17  # that a server is handed at once

Headers = dict[str, str]


class Whole(Response):
    """An answer that may be large: its `__call__` ends when it has gone to the client but for a rest, or the client has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI has it
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send_body(send, bytes(self.body))


async def send_body(send: Send, body: bytes) -> None:
    """All of it, and the end of the answer."""
    if len(body) > SLICE_BYTES:
        for piece in slices(body):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})


def slices(body: bytes) -> Iterator[bytes]:
    """A server takes whatever it is given at once, and waits for its client only before it takes more: so all that is in memory unread
    is a slice, beside what is not handed over yet. A client that reads, however slowly, is seen to do so by its taking slices.
    """
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]


def cache_headers(resolved: Resolved, settings: Settings, etag: str) -> Headers:
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


def sample_headers(seed: int | None, class_name: str | None) -> Headers:
    """The address of one sample; a class name is percent-encoded, for headers know only ASCII."""
    headers = {} if seed is None else {"X-Seed": str(seed)}
    return headers if class_name is None else headers | {"X-Class": quote(class_name)}


def pixel_headers(shape: Sequence[int]) -> Headers:
    """What the bare bytes of an array do not tell."""
    return {"X-Dtype": "uint8", "X-Shape": ",".join(map(str, shape))}


def without_making(request: Request, headers: Headers, media_type: str) -> Response | None:
    """304 or the answer to HEAD, for which nothing need be made; None for other requests."""
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    return head_of(headers, media_type) if request.method == "HEAD" else None


def head_of(headers: Headers, media_type: str) -> Response:
    """The answer to HEAD. It tells no length, which is known only once the thing is made."""
    response = Response(headers=headers, media_type=media_type)
    del response.headers["Content-Length"]
    return response


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes, which is cancelled when the client hangs up: its place in the queue becomes free."""
    with UnlessClientLeaves(request.receive) as leaving:
        return await work
    assert leaving.left
    return Response(status_code=CLIENT_CLOSED_REQUEST)
