"""Routes that take what they know and nothing else."""

import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, get_args, get_origin

from fastapi import Request, Response
from fastapi._compat import ModelField
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Header, Param, Path, Query
from fastapi.routing import APIRoute

Fault = dict[str, Any]

# Python also reads `1_0`, `+7`, ` 7` and the digits of other scripts.
NUMBERS = {
    int: (
        re.compile(r"[0-9]+|-0*[1-9][0-9]*"),
        "int_parsing",
        "Input should be a valid integer, unable to parse string as an integer",
    ),
    float: (
        re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
        "float_parsing",
        "Input should be a valid number, unable to parse string as a number",
    ),
}


class StrictRoute(APIRoute):
    """Refuses query parameters that its operation does not declare, so that a misspelt one is not silently left out, single ones
    that are given twice, and numbers that are written in a way that only Python reads.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        declared = get_flat_params(self.dependant)
        known = [field.alias for field in declared if isinstance(field.field_info, Query)]
        advice = f"unknown here, where there is {', '.join(known)}" if known else "unknown here, where there is none"
        single = [field for field in declared if not _is_list(field)]

        async def handle_known(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in known]
            faults = [{"type": "unknown", "loc": ("query", name), "msg": advice, "input": None} for name in unknown]
            faults = faults or [fault for field in single for fault in _faults(request, field)]
            if faults:
                raise RequestValidationError(faults)
            return await handle(request)

        return handle_known


def _is_list(field: ModelField) -> bool:
    annotation = field.field_info.annotation
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


def _faults(request: Request, field: ModelField) -> Iterator[Fault]:
    """What is wrong with the text of a parameter of one value, whatever it means."""
    assert isinstance(field.field_info, Param)
    values = _values(request, field)
    at = {"loc": (field.field_info.in_.value, field.alias), "input": values[-1] if values else None}
    if len(values) > 1:
        yield {"type": "repeated", "msg": f"given {len(values)} times: give it once", **at}
        return
    annotation = field.field_info.annotation
    for kind in (annotation, *get_args(annotation)):
        pattern, name, message = NUMBERS.get(kind, (None, "", "")) if isinstance(kind, type) else (None, "", "")
        if pattern is not None and values and not pattern.fullmatch(values[0]):
            yield {"type": name, "msg": message, **at}


def _values(request: Request, field: ModelField) -> Sequence[str]:
    """As often as it was given."""
    if isinstance(field.field_info, Query):
        return request.query_params.getlist(field.alias)
    if isinstance(field.field_info, Header):
        return request.headers.getlist(field.alias)
    if isinstance(field.field_info, Path):
        return [str(request.path_params[field.alias])]
    return []
