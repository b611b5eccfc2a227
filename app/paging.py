"""Cursor lists: newest first, stable while rows come and go.

A cursor is opaque to callers: it names the last row of the page before, by its (created_at, id).
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import FieldError, Invalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

Row = TypeVar("Row")


def encode_cursor(*key: str | float) -> str:
    """An opaque URL-safe token of a row's sort key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The sort key inside a cursor, whose parts must be of the given kinds; anything else raises Invalid."""
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        key = None
    # No id or name of ours holds what does not print: NUL, which PostgreSQL refuses, or half of a surrogate pair.
    if (
        not isinstance(key, list)
        or [type(part) for part in key] != list(kinds)
        or not "".join(map(str, key)).isprintable()
    ):
        detail = "This is not a cursor of this list: pass next_cursor of the page before as it came, or leave it out."
        raise Invalid(detail, errors=[FieldError("#/cursor", "not a cursor of this list")])
    return tuple(key)


def fetch_page(
    session: Session,
    query: Select[Row],
    created_at: InstrumentedAttribute[float],
    key: InstrumentedAttribute[str],
    *,
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Row], str | None]:
    """One page of `query`, newest first by (created_at, key), and the cursor of the next page (None after the last).

    `limit` is held between 1 and MAX_LIMIT. Raises Invalid for a cursor that is not ours.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    if cursor is not None:
        query = query.where(tuple_(created_at, key) < decode_cursor(cursor, float, str))
    rows = session.scalars(query.order_by(created_at.desc(), key.desc()).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], encode_cursor(getattr(last, created_at.key), getattr(last, key.key))
