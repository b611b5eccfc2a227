"""Samples by address: every one has a URL, an ETag and a cache."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from app.formats import BY_EXTENSION, FORMATS, check_grid
from app.http.addresses import Address, answer
from app.http.answers import cache_headers, head_of, unless_client_leaves
from app.http.deps import ReferencesDep, SamplerDep, SettingsDep
from app.http.downloads import not_modified
from app.http.parameters import ClassQuery, Deadline, ModelRef, Seed, Truncation
from app.http.routing import StrictRoute
from app.sampling import Seeds
from app.sampling.labels import of_seed, of_seeds
from app.sampling.seeds import parse
from app.schemas.base import problems
from models.pictures import tile

router = APIRouter(prefix="/v1/models", tags=["samples"], route_class=StrictRoute)

PNG = FORMATS["png"]
Extension = Literal["png", "jpg", "webp"]  # the keys of BY_EXTENSION, for the document
SEEDS: dict[str, Any] = {"pattern": "^[0-9, -]*$"}  # for the document; what is wrong with others, `parse` says better
UNCHANGED = {"description": "If-None-Match names it: nothing was made."}
PROBLEMS = problems(404, 409, 410, 422, 429, 504)
SAMPLE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The sample.", "content": {entry.media_type: {} for entry in FORMATS.values()}},
    304: UNCHANGED,
}
GRID: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {PNG.media_type: {}}},
    304: UNCHANGED,
}


@router.get(
    "/{ref}/samples/{seed}.{extension}",
    summary="One sample, by its seed",
    response_class=Response,
    responses=SAMPLE | PROBLEMS,
)
@router.head("/{ref}/samples/{seed}.{extension}", include_in_schema=False)
async def get_sample(
    request: Request,
    references: ReferencesDep,
    ref: ModelRef,
    seed: Seed,
    extension: Annotated[Extension, Path(description="jpg lays transparency over white; webp is lossless.")],
    class_name: ClassQuery = None,
    truncation: Truncation = 1.0,
    deadline: Deadline = None,
) -> Response:
    """The same reference to a version, seed, class and truncation give the same bytes, whenever and beside whatever they are
    asked for. `X-Model-Version`, `X-Seed` and `X-Class` (percent-encoded) say what it is.
    """
    resolved = await references.resolve(ref)
    label = of_seed(resolved.info["classes"], seed, class_name)
    found = await answer(
        Address(resolved, seed, label, truncation, BY_EXTENSION[extension]),
        request.app.state,
        method=request.method,
        held=request.headers.get("If-None-Match"),
        deadline_seconds=deadline,
        receive=request.receive,
    )
    response = Response(found.body, found.status, found.headers)
    if found.body is None:
        del response.headers["Content-Length"]
    return response


@router.get(
    "/{ref}/grid.png",
    summary="Many samples in one picture",
    response_class=Response,
    responses=GRID | PROBLEMS,
)
@router.head("/{ref}/grid.png", include_in_schema=False)
async def get_grid(
    request: Request,
    references: ReferencesDep,
    sampler: SamplerDep,
    settings: SettingsDep,
    ref: ModelRef,
    seeds: Annotated[
        str, Query(max_length=8192, description="Such as `0-63` or `0-9,20,30-39`.", json_schema_extra=SEEDS)
    ] = "0-63",
    columns: Annotated[int, Query(ge=1, le=1024)] = 8,
    class_name: ClassQuery = None,
    scale: Annotated[int, Query(ge=1, le=32, description="Repeats each pixel, for small samples.")] = 1,
    truncation: Truncation = 1.0,
    deadline: Deadline = None,
) -> Response:
    """The samples of these seeds, row by row, each the very pixels that it has at its own address."""
    numbers = parse(seeds, limit=settings.sync_generation_limit)
    resolved = await references.resolve(ref)
    labels = of_seeds(resolved.info["classes"], numbers, class_name)
    height, width = resolved.info["height"], resolved.info["width"]
    check_grid(len(numbers), columns, scale, height=height, width=width, format=PNG)
    etag = await sampler.etag(resolved, PNG, "grid", numbers, labels, truncation, columns, scale)
    headers = cache_headers(resolved, settings, etag)
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    if request.method == "HEAD":
        return head_of(headers, PNG.media_type)

    async def make() -> Response:
        made = await sampler.gather(resolved, Seeds.of(numbers, labels, truncation), None, deadline)
        data = await sampler.beside(lambda: PNG.encode(tile(made.images, columns, scale=scale)))
        return Response(data, headers=headers, media_type=PNG.media_type)

    return await unless_client_leaves(request, make())
