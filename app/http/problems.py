"""Errors on their way out: everything becomes `application/problem+json` (RFC 9457), here and nowhere else."""

import random
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, compile_path
from starlette.types import Receive, Scope, Send

from app.errors import FieldError, GanvilError, Invalid, InvalidState, NotFound, TooLarge
from app.schemas.base import Problem, ProblemError
from models.catalog import escaped
from models.unknown import FORBIDDEN, unknown

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20  # faults that one answer lists
MAX_DETAIL = 1000  # characters
MAX_FIELD = 400  # of a fault's pointer, and of its detail

log = structlog.get_logger(__name__)

_dice = random.Random()  # noqa: S311 - these are names, no secrets; of its own, so that nobody's seed makes two of one name

Place = Literal["body", "query", "path", "header"]


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def install(app: FastAPI) -> None:
    """Register the handlers of every kind of error."""
    app.add_exception_handler(GanvilError, on_ganvil_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)


def problem(
    scope: Scope,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Sequence[ProblemError] = (),
    headers: Mapping[str, str] | None = None,
    state: str | None = None,
) -> ProblemResponse:
    """The answer that tells of an error."""
    body = Problem(
        type=f"urn:ganvil:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=_clipped(detail, MAX_DETAIL),
        instance=scope["path"],
        request_id=request_id(scope),
        errors=list(errors[:MAX_ERRORS]) or None,
        state=state,
    )
    return ProblemResponse(body.model_dump(by_alias=True, exclude_none=True), status_code=status, headers=headers)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fault(pointer: str, place: Place, detail: str) -> ProblemError:
    return ProblemError(pointer=_clipped(pointer, MAX_FIELD), location=place, detail=_clipped(detail, MAX_FIELD))


def request_id(scope: Scope) -> str:
    """The id that the outermost middleware gave to this request."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


def new_request_id() -> str:
    return f"req_{_dice.getrandbits(64):016x}"


async def refuse(error: GanvilError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer from within a middleware, where no exception handler stands around us."""
    response = await on_ganvil_error(Request(scope), error)
    await response(scope, receive, send)


async def on_ganvil_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, GanvilError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("refused", code=error.code, detail=error.detail, cause=repr(error.__cause__))
    return problem(
        request.scope,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        errors=[located(request, field) for field in error.errors[:MAX_ERRORS]],
        headers=error.headers,
        state=error.state if isinstance(error, InvalidState) else None,
    )


def located(request: Request, error: FieldError) -> ProblemError:
    """Says where the field that domain code names stood in this request."""
    name = error.pointer.removeprefix("#/").split("/")[0]
    place: Place = "query" if name in request.query_params else "path" if name in request.path_params else "body"
    return _fault(error.pointer, place, error.detail)


async def on_validation_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        position, reason = found[0]["loc"][-1], found[0]["ctx"]["error"]
        return _bad_request(request, f"The body is not JSON: {reason}, at character {position}.")
    errors = [_field_error(each, error.body, _body_of(request)) for each in found[:MAX_ERRORS]]
    first = errors[0]
    more = f" ({len(found) - 1} more{_where_more(len(found))})" if len(found) > 1 else ""
    return problem(
        request.scope,
        status=Invalid.status,
        code=Invalid.code,
        title=Invalid.title,
        detail=f"{first.location} {first.pointer}: {first.detail}{more}.",
        errors=errors,
    )


def _where_more(found: int) -> str:
    return " in errors" if found <= MAX_ERRORS else f"; errors has the first {MAX_ERRORS}"


def _body_of(request: Request) -> type[BaseModel] | None:
    """The model of the body that the operation takes."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = None if field is None else field.field_info.annotation
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _field_error(error: Mapping[str, Any], body: Any, model: type[BaseModel] | None) -> ProblemError:
    place, *path = error["loc"]
    detail = error["msg"].removeprefix("Value error, ")
    if error["type"] == FORBIDDEN and place == "body" and model is not None:
        detail = unknown(model, path)
    if isinstance(error["input"], str):
        # Where the length of a text is checked last, pydantic counts "items after validation".
        detail = re.sub(r"\bitem(s?) after validation", r"character\1", detail)
    if place == "body":
        path = _steps(path, body, missing=error["type"] == "missing")
        detail = detail if isinstance(body, dict) else "a JSON object is needed, sent as application/json"
    # What the client sent may hold lone surrogates, which no answer can.
    pointer = "#" + "".join(f"/{escaped(part)}" for part in path).encode("utf-8", "replace").decode()
    return _fault(pointer, place, detail)


def _steps(path: Sequence[Any], body: Any, *, missing: bool) -> list[Any]:
    """The steps of pydantic's location that lead somewhere in the body: it also names the members of unions that it tried."""
    steps: list[Any] = []
    for part in path:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and part in range(len(body))):
            steps.append(part)
            body = body[part]
    return [*steps, path[-1]] if missing and path else steps


async def on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    """Starlette's own: unknown path, wrong method, a body that cannot be parsed or is too large."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return await on_ganvil_error(
            request, NotFound(f"There is nothing at {request.url.path}: see /docs for what there is.")
        )
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return await on_ganvil_error(request, TooLarge(error.detail))
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return _bad_request(
            request, "The body cannot be read: it must be JSON in UTF-8, whole and not nested too deep."
        )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allowed_methods(request))
    phrase = HTTPStatus(error.status_code).phrase
    return problem(
        request.scope,
        status=error.status_code,
        code=phrase.lower().replace(" ", "_"),
        title=phrase.capitalize(),
        detail=f"{request.method} {request.url.path}: {error.detail}.",
        headers=headers,
    )


def allowed_methods(request: Request) -> list[str]:
    """Those that the document has for this path, and HEAD where it works: Starlette tells of the first route alone."""
    paths = request.app.openapi()["paths"]
    found = [paths[request.url.path]] if request.url.path in paths else []
    found = found or [methods for path, methods in paths.items() if _matches(path, request.url.path)]
    documented = {method.upper() for methods in found for method in methods}
    others = (
        [method for method in ("GET", "HEAD") if _works(request, method)] if "GET" in documented or not found else []
    )
    return sorted(documented.union(others))


def _matches(template: str, path: str) -> bool:
    pattern, _, _ = compile_path(template)
    return pattern.match(path) is not None


def _works(request: Request, method: str) -> bool:
    """Whether a route takes this path with that method. A mount takes all; what is mounted here are files."""
    scope = {key: request.scope[key] for key in ("type", "path", "headers")} | {"method": method}
    scope["root_path"] = request.scope.get("app_root_path", request.scope["root_path"])  # a mount has added its own
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _bad_request(request: Request, detail: str) -> ProblemResponse:
    return problem(request.scope, status=400, code="bad_request", title="Bad request", detail=detail)


async def on_unexpected(request: Request, error: Exception) -> ProblemResponse:
    """A fault of ours: the log has the traceback, the answer has the id to find it by."""
    log.error("unexpected error", method=request.method, path=request.url.path, exc_info=error)
    response = problem(
        request.scope,
        status=GanvilError.status,
        code=GanvilError.code,
        title=GanvilError.title,
        detail="Something went wrong on our side. The server's log has more under this request_id.",
    )
    response.headers["X-Request-Id"] = request_id(request.scope)  # this one passes by the middleware that adds it
    return response
