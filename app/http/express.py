"""The short way to a sample: past the router and the parsing of FastAPI, which take longer than the sample does.

It knows only the plainest requests: a GET or HEAD of a seed in a format, perhaps with a class and a truncation, by a reference
that was looked up lately. All others, and all that might be wrong, go on to the route (`app.routes.samples`), which says what is
wrong; both give the same answers, from `app.http.addresses`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import GanvilError
from app.formats import BY_SPELLING
from app.http.addresses import Address, answer
from app.http.answers import send_body
from app.http.parameters import DEADLINE_HEADER, MAX_CLASS_NAME, MAX_DEADLINE_SECONDS, MIN_DEADLINE_SECONDS
from app.http.problems import refuse
from app.sampling import Sent
from app.sampling.labels import of_seed
from models.config import MAX_SEED

PATH = re.compile(r"/v1/models/([A-Za-z0-9._:@-]{1,160})/samples/([0-9]{1,19})\.([a-z]{3,4})")
TRUNCATION = re.compile(r"0\.[0-9]{1,15}|1(?:\.0)?")
DEADLINE = DEADLINE_HEADER.lower().encode()
SECONDS = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,6})?")


class Options(NamedTuple):
    """What the query asks for."""

    class_name: str | None = None
    truncation: float = 1.0


class Conditions(NamedTuple):
    """What the headers ask for."""

    held: str | None = None
    deadline_seconds: float | None = None


class Express:
    """ASGI middleware, behind all that decides who may come in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
        address = _address(scope) if plain else None
        conditions = _conditions(scope["headers"]) if address is not None else None
        if address is None or conditions is None:
            await self.app(scope, receive, send)
            return
        state = scope["app"].state
        with Sent() as sent:
            try:
                found = await answer(
                    address, state, method=scope["method"], receive=receive, sent=sent, **conditions._asdict()
                )
            except GanvilError as error:
                await refuse(error, scope, receive, send)
                return
            headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in found.headers.items()]
            if found.body is not None:
                headers.append((b"content-length", b"%d" % len(found.body)))
            await send({"type": "http.response.start", "status": found.status, "headers": headers})
            await send_body(send, found.body or b"")


def _address(scope: Scope) -> Address | None:
    """The sample that is asked for, where that is plain."""
    match = PATH.fullmatch(scope["path"])
    options = _options(scope["query_string"]) if match else None
    if match is None or options is None:
        return None
    ref, seed, extension = match[1], int(match[2]), match[3]
    resolved = scope["app"].state.references.peek(ref)
    if resolved is None or seed > MAX_SEED or extension not in BY_SPELLING:
        return None
    try:
        label = of_seed(resolved.info["classes"], seed, options.class_name)
    except GanvilError:
        return None
    return Address(resolved, seed, label, options.truncation, BY_SPELLING[extension])


@lru_cache(maxsize=1024)
def _options(query: bytes) -> Options | None:
    """What a query means; None where that is not plain."""
    if not query:
        return Options()
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        return None
    given = dict(pairs)
    truncation = given.get("truncation", "1")
    if len(given) < len(pairs) or not given.keys() <= {"class", "truncation"} or not TRUNCATION.fullmatch(truncation):
        return None
    class_name = given.get("class")
    if float(truncation) == 0 or (class_name is not None and len(class_name) > MAX_CLASS_NAME):
        return None
    return Options(class_name, float(truncation))


def _conditions(headers: Iterable[tuple[bytes, bytes]]) -> Conditions | None:
    """What the headers of a GET ask for; None where that is not plain."""
    held, deadline = [], None
    for name, value in headers:
        if name == b"if-none-match":
            held.append(value.decode("latin-1"))
        elif name == DEADLINE:
            if deadline is not None or not SECONDS.fullmatch(value) or not _lasts(float(value)):
                return None
            deadline = float(value)
    return Conditions(", ".join(held) if held else None, deadline)


def _lasts(seconds: float) -> bool:
    return MIN_DEADLINE_SECONDS <= seconds <= MAX_DEADLINE_SECONDS
