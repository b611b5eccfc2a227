"""Routes that take what they know and nothing else."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.routing import APIRoute


class StrictRoute(APIRoute):
    """Refuses query parameters that its operation does not declare, so that a misspelt one is not silently left out."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        declared = get_flat_params(self.dependant)
        known = [field.alias for field in declared if isinstance(field.field_info, Query)]
        advice = f"unknown here, where there is {', '.join(known)}" if known else "unknown here, where there is none"

        async def handle_known(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in known]
            if unknown:
                raise RequestValidationError(
                    [{"type": "unknown", "loc": ("query", name), "msg": advice, "input": None} for name in unknown]
                )
            return await handle(request)

        return handle_known
