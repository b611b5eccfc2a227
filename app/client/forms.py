"""What requests of the client are made of."""

import uuid
from typing import Any
from urllib.parse import quote


def without_none(**values: Any) -> dict[str, Any]:
    """Leaves out what was not given, so that the service's defaults hold."""
    return {key: value for key, value in values.items() if value is not None}


def idempotency() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def segment(ref: str) -> str:
    """A ref as one segment of a path."""
    return quote(ref, safe=":@")
