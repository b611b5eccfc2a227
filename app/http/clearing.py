"""Deleting the objects of what the database has just forgotten."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.errors import Unavailable

log = structlog.get_logger()


@contextmanager
def clearing(what: str) -> Iterator[None]:
    """For the block after the commit: `what` is deleted also when the storage is away, whose objects are then left and logged."""
    try:
        yield
    except Unavailable as error:
        log.warning("storage.left_behind", what=what, error=error.detail)
