"""The OpenAPI document, and the pages that show it. Swagger UI and ReDoc come from the package: nothing leaves the machine."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from app.errors import GanvilError
from app.http.problems import MEDIA_TYPE

WEB = Path(__file__).parents[1] / "web"
SAME_ORIGIN_ONLY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
DESCRIPTION = """
Trains generative adversarial networks on your images and serves what they learned.

Import a data set, submit a job, watch it, and fetch images by URL while it trains and for as long as you keep the model. Start
with `POST /v1/datasets/import` and, when its data set is `ready`, `POST /v1/jobs`: the examples below are about what these two
make, so each works as it stands.

- Work that goes on answers 201 or 202 and is looked at again; lists come in pages, newest first: give `next_cursor` back as `cursor`.
- Errors are `application/problem+json` with a stable `code`; each names the field and what to do.
- An option that an operation does not know, in the query or in the body, is an error: a misspelt one is never silently left out.
- Pictures, event streams and downloads can be had without a key by addresses that `POST /v1/signed-urls` gives.
- A POST that creates something takes an `Idempotency-Key` and may then be repeated without harm.
"""
TAGS = [
    {"name": "datasets", "description": "Images to learn from."},
    {"name": "jobs", "description": "Training: submit, steer, watch. `latest` stands for the newest job."},
    {"name": "models", "description": "What was learned: versions, aliases, downloads."},
    {"name": "samples", "description": "Generated images. A seed is an address: the same one gives the same image."},
    {"name": "batches", "description": "Many samples, made in the background and kept as files for some days."},
    {"name": "access", "description": "Addresses that need no key."},
    {"name": "catalog", "description": "What can be asked for."},
    {"name": "operations", "description": "Health, queue and workers."},
]
# What any operation may answer, beside its own: see app.http.problems.
EVERYWHERE = {
    "400": "This is not valid HTTP",
    "403": "Not from here",
    "422": "Something in the request is invalid",
    "431": "The request line and the headers are too large",
}
WITH_A_KEY = {"401": "An API key is needed", "503": "The database or the object storage does not answer"}
WRITING = {"507": "No space is left"}
WITH_BODY = {
    "400": "This is not valid HTTP, or the body cannot be read",
    "408": "The body stopped arriving",
    "413": "The body is too large",
}
PROBLEM = {"$ref": "#/components/schemas/Problem"}
KINDS = {kind.status: kind for kind in GanvilError.__subclasses__()}  # of error, by what they answer


class DocumentedAPI(FastAPI):
    """FastAPI with our OpenAPI document: the function's name is the operation's id, and errors are what they really are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            title="Ganvil",
            version="1",
            description=DESCRIPTION,
            openapi_tags=TAGS,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            generate_unique_id_function=_operation_id,
            **options,
        )

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema


def install(app: FastAPI) -> None:
    """Add the pages /docs and /redoc and what they load."""

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    async def swagger() -> FileResponse:
        return FileResponse(WEB / "swagger.html", headers=SAME_ORIGIN_ONLY)

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> FileResponse:
        return FileResponse(WEB / "redoc.html", headers=SAME_ORIGIN_ONLY)

    app.mount("/static", StaticFiles(directory=WEB / "static"), name="static")


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of something that may be left out, but cannot be null where it stands: in a URL, a header, a form."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    described = {name: value for name, value in schema.items() if name not in {"anyOf", "title", "default"}}
    return {**kinds[0], **described}


def _operation_id(route: APIRoute) -> str:
    return route.name


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """Declares the bearer key and the errors that middleware and handlers answer with."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            open_to_all = path.startswith("/health/")
            operation["security"] = [] if open_to_all else [{"key": []}]
            for parameter in operation.get("parameters", []):
                parameter["schema"] = without_null(parameter["schema"])
            answers = operation["responses"]
            for status, description in _common(method, operation).items():
                answers.setdefault(status, {"description": description})
            for status, answer in answers.items():
                shows_components = open_to_all and "content" in answer  # as an unready service does
                if status >= "400" and not shows_components:
                    answer["content"] = _problem(path, status, answer["description"])
            operation["responses"] = dict(sorted(answers.items()))
    return document


def _problem(path: str, status: str, description: str) -> dict[str, Any]:
    """The content of an error answer, with an example that has its code."""
    number = int(status)
    phrase = HTTPStatus(number).phrase.capitalize()
    code, title = (
        (KINDS[number].code, KINDS[number].title) if number in KINDS else (phrase.lower().replace(" ", "_"), phrase)
    )
    example = {
        "type": f"urn:ganvil:problem:{code}",
        "title": title,
        "status": number,
        "code": code,
        "detail": f"{description}.",
        "instance": path,
        "request_id": "req_5f0c1b2a3d4e5f60",
    }
    return {MEDIA_TYPE: {"schema": PROBLEM, "example": example}}


def _common(method: str, operation: dict[str, Any]) -> dict[str, str]:
    """What operations like this one may answer beside their own."""
    return {
        **EVERYWHERE,
        **(WITH_A_KEY if operation["security"] else {}),
        **({} if method == "get" else WRITING),
        **(WITH_BODY if "requestBody" in operation else {}),
    }
