"""Idempotency-Key: a POST that creates something may be repeated, and creates one thing all the same.

The first answer is stored in the transaction of what it created, so either both are there or neither. A repetition gets that
answer again; the same key with another request is refused; a repetition while the first is still under way is told to wait.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.db import clock, settings_of
from app.errors import Conflict, IdempotencyMismatch
from app.http.deps import CallerDep
from app.tables import IdempotencyKey


@dataclass(frozen=True)
class Created:
    """The answer to a creation."""

    status_code: int
    view: BaseModel
    location: str


class Once:
    """Answers one request, which may carry a key, once."""

    def __init__(self, scope: str, key: str | None) -> None:
        self.scope = scope
        self.key = key

    def replay(self, session: Session, asked: Any) -> JSONResponse | None:
        """The stored answer to this request; None when there is none. Raises IdempotencyMismatch."""
        stored = session.get(IdempotencyKey, (self.scope, self.key)) if self.key is not None else None
        if stored is None or stored.created_at < clock(session) - settings_of(session).idempotency_seconds:
            return None
        if stored.fingerprint != fingerprint(asked):
            raise IdempotencyMismatch(
                "This Idempotency-Key came with another request before: use a new one for a new request."
            )
        headers = {"Location": stored.location or "", "Idempotent-Replayed": "true"}
        return JSONResponse(stored.body, stored.status_code, headers)

    def answer(self, session: Session, asked: Any, create: Callable[[], Created]) -> JSONResponse:
        """The stored answer, or else that of `create`, stored in this writing transaction. Raises IdempotencyMismatch."""
        if (replayed := self.replay(session, asked)) is not None:
            return replayed
        created = create()
        body = created.view.model_dump(mode="json", by_alias=True)
        if self.key is not None:
            row = IdempotencyKey(
                scope=self.scope,
                key=self.key,
                fingerprint=fingerprint(asked),
                status_code=created.status_code,
                body=body,
                location=created.location,
                created_at=clock(session),
            )
            session.merge(row)  # over an outdated one that no sweep has cleared away yet
        return JSONResponse(body, created.status_code, {"Location": created.location})


def fingerprint(asked: Any) -> str:
    """Of what was asked for, as JSON: spaces and the order of keys do not count."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


async def _once(
    request: Request,
    caller: CallerDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,255}$",
            description="Any text of yours, new for each thing to create: a repetition with the same key creates nothing more.",
        ),
    ] = None,
) -> AsyncIterator[Once]:
    once = Once(f"{caller.name} {request.method} {request.url.path}", idempotency_key)
    if idempotency_key is None:
        yield once
        return
    # Across processes the stored row's primary key decides; within this one the second need not even send its body.
    under_way: set[tuple[str, str]] = request.app.state.under_way
    place = (once.scope, idempotency_key)
    if place in under_way:
        detail = "A request with this Idempotency-Key is still under way: repeat it in a moment to get its answer."
        raise Conflict(detail, headers={"Retry-After": "1"})
    under_way.add(place)
    try:
        yield once
    finally:
        under_way.discard(place)


OnceDep = Annotated[Once, Depends(_once, scope="function")]
