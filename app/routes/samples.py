"""Samples by address: every one has a URL, an ETag and a cache."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from app.formats import BY_EXTENSION, FORMATS, check_grid
from app.http.answers import (
    cache_headers,
    head_of,
    resolve,
    sample_headers,
    unless_client_leaves,
)
from app.http.deps import DatabaseDep, SamplerDep, SettingsDep
from app.http.downloads import not_modified
from app.http.parameters import ModelRef, Seed
from app.http.routing import StrictRoute
from app.sampling.labels import of_seeds
from app.sampling.seeds import parse
from app.schemas.base import problems

router = APIRouter(prefix="/v1/models", tags=["samples"], route_class=StrictRoute)

PNG = FORMATS["png"]
Extension = Literal["png", "jpg", "webp"]  # the keys of BY_EXTENSION, for the document
ClassQuery = Annotated[
    str | None,
    Query(
        alias="class",
        max_length=200,
        description="A class by its name or, when none is called so, by its index. "
        "Without it a conditional model takes the class that the seed stands for.",
    ),
]
Truncation = Annotated[
    float, Query(gt=0, le=1, description="Draws z towards its mean: less variety, more typical samples.")
]
SEEDS: dict[str, Any] = {"pattern": "^[0-9, -]*$"}  # for the document; what is wrong with others, `parse` says better
UNCHANGED = {"description": "If-None-Match names it: nothing was made."}
PROBLEMS = problems(404, 409, 410, 422, 429)
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
    database: DatabaseDep,
    sampler: SamplerDep,
    settings: SettingsDep,
    ref: ModelRef,
    seed: Seed,
    extension: Annotated[Extension, Path(description="jpg lays transparency over white; webp is lossless.")],
    class_name: ClassQuery = None,
    truncation: Truncation = 1.0,
) -> Response:
    """The same reference to a version, seed, class and truncation give the same bytes, whenever and beside whatever they are
    asked for. `X-Model-Version`, `X-Seed` and `X-Class` (percent-encoded) say what it is.
    """
    resolved = await resolve(database, ref)
    classes = resolved.info["classes"]
    labels = of_seeds(classes, [seed], class_name)
    format = BY_EXTENSION[extension]  # noqa: A001
    etag = await sampler.etag(resolved, format, seed, labels, truncation)
    named = None if labels is None else classes[labels[0]]
    headers = cache_headers(resolved, settings, etag) | sample_headers(seed, named)
    if (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    if request.method == "HEAD":
        return head_of(headers, format.media_type)

    async def make() -> Response:
        made = await sampler.generate(resolved, [seed], labels, truncation)
        (data,) = await sampler.encode(made.images, format)
        return Response(data, headers=headers, media_type=format.media_type)

    return await unless_client_leaves(request, make())


@router.get(
    "/{ref}/grid.png",
    summary="Many samples in one picture",
    response_class=Response,
    responses=GRID | PROBLEMS,
)
@router.head("/{ref}/grid.png", include_in_schema=False)
async def get_grid(
    request: Request,
    database: DatabaseDep,
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
) -> Response:
    """The samples of these seeds, row by row, each the very pixels that it has at its own address."""
    numbers = parse(seeds, limit=settings.sync_generation_limit)
    resolved = await resolve(database, ref)
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
        made = await sampler.generate(resolved, numbers, labels, truncation)
        data = await sampler.encode_grid(made.images, columns, PNG, scale)
        return Response(data, headers=headers, media_type=PNG.media_type)

    return await unless_client_leaves(request, make())
