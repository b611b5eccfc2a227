"""Whether what the service stands on answers."""

from typing import Literal

import redis

from app.db import Database
from app.errors import Unavailable
from app.settings import Settings
from app.storage import Storage

State = Literal["up", "down", "off"]
PATIENCE_SECONDS = 1.0


def components(database: Database, storage: Storage, settings: Settings) -> dict[str, State]:
    """The state of each: database, storage, redis (off when none is configured)."""
    return {
        "database": _answers(database),
        "storage": _answers(storage),
        "redis": "off" if settings.redis_url is None else _redis_answers(settings.redis_url),
    }


def status(states: dict[str, State]) -> Literal["ready", "degraded", "unready"]:
    """Jobs are accepted, and images served, without Redis: its loss alone makes nothing unready."""
    if "down" in (states["database"], states["storage"]):
        return "unready"
    return "degraded" if states["redis"] == "down" else "ready"


def _answers(part: Database | Storage) -> State:
    try:
        part.ping()
    except Unavailable:
        return "down"
    return "up"


def _redis_answers(url: str) -> State:
    patience = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
    try:
        with redis.Redis.from_url(url, **patience) as client:
            client.ping()
    except redis.RedisError:
        return "down"
    return "up"
