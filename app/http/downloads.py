"""Conditional and partial answers (RFC 9110): ETag and 304, Range, 206 and 416."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping

import structlog
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import GanvilError, RangeNotSatisfiable
from app.storage import Storage

RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
log = structlog.get_logger(__name__)

BEYOND = 2**64  # bytes, more than any file has


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """304 when the client holds what `headers["ETag"]` names already, else None."""
    held = held_by(request)
    unchanged = held is not None and names(held, headers["ETag"])
    return Response(status_code=304, headers=dict(headers)) if unchanged else None


def held_by(request: Request) -> str | None:
    """What If-None-Match names, on however many lines; None without one."""
    return ", ".join(request.headers.getlist("if-none-match")) or None


def names(held: str, etag: str) -> bool:
    """Whether an If-None-Match names this tag: compared weakly (RFC 9110, section 13.1.2)."""
    return held == etag or any(tag.strip().removeprefix("W/") in {etag, "*"} for tag in held.split(","))


def send_object(
    request: Request,
    storage: Storage,
    key: str,
    *,
    sha256: str,
    media_type: str,
    filename: str,
    size: int | None = None,
) -> Response:
    """An object that never changes, or the first `size` bytes of it: whole, or the range that was asked for.

    Raises NotFound and RangeNotSatisfiable.
    """
    return send_bytes(
        request,
        lambda: storage.size(key) if size is None else size,
        lambda start, end: storage.stream(key, start, end),
        sha256=sha256,
        media_type=media_type,
        filename=filename,
    )


def send_bytes(
    request: Request,
    size_of: Callable[[], int],
    stream: Callable[[int, int], Iterator[bytes]],
    *,
    sha256: str,
    media_type: str,
    filename: str,
) -> Response:
    """The same of whatever has a size and gives its bytes [start, end)."""
    headers = {
        "ETag": f'"{sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    size = size_of()
    # Ranges are of GET alone (RFC 9110, section 14.2).
    part = None if request.method == "HEAD" else requested_range(request, size, headers["ETag"])
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media_type)
    return Download(stream(start, end), status, headers, media_type)


class Download(StreamingResponse):
    """Breaks the connection where the rest cannot be had: nobody is to take what came for the whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except GanvilError as error:
            if "break_off" not in scope["state"]:
                raise
            log.warning("download broken off", path=scope["path"], detail=error.detail)
            scope["state"]["break_off"]()
            await asyncio.sleep(0)  # so that the server knows it before this returns


def requested_range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """The bytes [start, end) that the request wants; None for all of them, as for several ranges or an outdated If-Range.

    Raises RangeNotSatisfiable.
    """
    match = RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = (_position(digits) if digits else None for digits in match.groups())
    if first is not None:
        start, end = first, size if last is None else min(last + 1, size)
    elif last is not None:
        start, end = max(0, size - last), size
    else:
        return None
    if first is not None and last is not None and last < first:
        return None  # malformed, and so to be ignored
    if start >= end:
        detail = f"The file has {size} bytes: ask for some within them."
        raise RangeNotSatisfiable(detail, headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _position(digits: str) -> int:
    """The number, or one that lies beyond any file when it has more digits than that: Python refuses to read thousands."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) < len(str(BEYOND)) else BEYOND
