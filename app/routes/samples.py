"""Samples by address: every one has a URL, an ETag and a cache."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from app.errors import FieldError, Invalid
from app.formats import BY_SPELLING, FORMATS, Format, captions, check_grid, check_scale, format_with, grid
from app.http.addresses import Address, answer
from app.http.answers import Whole, cache_headers, unless_client_leaves, without_making
from app.http.deps import ReferencesDep, SamplerDep, SentDep, SettingsDep
from app.http.downloads import held_by
from app.http.orders import size_of
from app.http.parameters import SEEDS, UNCHANGED, ClassQuery, Deadline, ModelRef, Seed, Truncation
from app.http.routing import StrictRoute
from app.registry import Resolved
from app.sampling import Seeds, picture_bytes
from app.sampling.labels import of_seed, of_seeds
from app.sampling.ranges import runs
from app.sampling.ranges import text as text_of
from app.sampling.seeds import parse
from app.schemas.base import problems

router = APIRouter(prefix="/v1/models", tags=["samples"], route_class=StrictRoute)

Extension = Literal["png", "jpg", "jpeg", "webp", "avif", "raw"]  # the keys of BY_SPELLING, for the document
PictureExtension = Literal["png", "jpg", "jpeg", "webp", "avif"]
EXTENSION = Path(
    description="jpg, or jpeg, lays transparency over white; webp is lossless unless a quality is given; raw is the bytes uint8 [H, W, C], "
    "of the shape in `X-Shape`."
)
Scale = Annotated[
    int, Query(ge=1, le=32, description="Repeats each pixel so often across and down, for small samples.")
]
Quality = Annotated[int | None, Query(ge=1, le=100, description="Of jpg, webp and avif: 100 loses least.")]
Lossless = Annotated[
    bool | None, Query(description="Of webp: whether every pixel is kept, as it is without a quality.")
]
SeedsQuery = Annotated[
    str, Query(max_length=8192, description="Such as `0-63` or `0-9,20,30-39`.", json_schema_extra=SEEDS)
]
PROBLEMS = problems(404, 409, 410, 422, 429, 504)
TOO_MANY = "{count} samples were asked for, and one grid shows {limit} at most: ask for several grids."
SAMPLE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The sample.", "content": {entry.media_type: {} for entry in FORMATS.values()}},
    304: UNCHANGED,
}
GRID: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {entry.media_type: {} for entry in FORMATS.values() if entry.extension != "raw"},
    },
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
    sent: SentDep,
    ref: ModelRef,
    seed: Seed,
    extension: Annotated[Extension, EXTENSION],
    class_name: ClassQuery = None,
    truncation: Truncation = 1.0,
    scale: Scale = 1,
    quality: Quality = None,
    lossless: Lossless = None,
    deadline: Deadline = None,
) -> Response:
    """The same reference to a version, seed, class and truncation give the same bytes, whenever and beside whatever they are
    asked for. `X-Model-Version`, `X-Seed` and `X-Class` (percent-encoded) say what it is.
    """
    resolved = await references.resolve(ref)
    label = of_seed(resolved.info["classes"], seed, class_name)
    format = format_of(extension, quality=quality, lossless=lossless)  # noqa: A001
    check_scale(scale, format=format, **size_of(resolved))
    found = await answer(
        Address(resolved, seed, label, truncation, format, scale),
        request.app.state,
        method=request.method,
        held=held_by(request),
        deadline_seconds=deadline,
        receive=request.receive,
        sent=sent,
    )
    response = Whole(found.body, found.status, found.headers)
    if found.body is None:
        del response.headers["Content-Length"]
    return response


def format_of(extension: str, *, quality: int | None = None, lossless: bool | None = None) -> Format:
    """The format that files with this extension have. Raises Invalid where this server cannot make it, or not so."""
    if extension not in BY_SPELLING:
        known = ", ".join(entry.extension for entry in FORMATS.values())
        detail = f"This server cannot make {extension}: ask for {known}."
        raise Invalid(detail, errors=[FieldError("#/extension", detail)])
    return format_with(BY_SPELLING[extension].name, quality=quality, lossless=lossless)


@router.get(
    "/{ref}/grid.{extension}",
    summary="Many samples in one picture",
    response_class=Response,
    responses=GRID | PROBLEMS,
)
@router.head("/{ref}/grid.{extension}", include_in_schema=False)
async def get_grid(
    request: Request,
    references: ReferencesDep,
    sampler: SamplerDep,
    settings: SettingsDep,
    sent: SentDep,
    ref: ModelRef,
    extension: Annotated[PictureExtension, Path(description="png and webp keep every pixel.")],
    seeds: SeedsQuery = "0-63",
    columns: Annotated[int, Query(ge=1, le=1024, description="How many samples a row has.")] = 8,
    labels: Annotated[bool, Query(description="Writes its class and its seed under each sample.")] = False,
    class_name: ClassQuery = None,
    scale: Scale = 1,
    truncation: Truncation = 1.0,
    quality: Quality = None,
    deadline: Deadline = None,
) -> Response:
    """The samples of these seeds, row by row, each the very pixels that it has at its own address."""
    numbers = parse(seeds, limit=settings.sync_generation_limit, too_many=TOO_MANY)
    resolved = await references.resolve(ref)
    format = format_of(extension, quality=quality)  # noqa: A001
    classes = of_seeds(resolved.info["classes"], numbers, class_name)
    texts = captions(numbers, names_of(resolved, classes, len(numbers))) if labels else None
    check_grid(len(numbers), columns, scale, format=format, captions=texts, **size_of(resolved))
    etag = await sampler.etag(resolved, format, "grid", numbers, classes, truncation, columns, scale, labels)
    provenance = await sampler.provenance(resolved, format)
    headers = cache_headers(resolved, settings, etag)
    if (known := without_making(request, headers, format.media_type)) is not None:
        return known
    text = provenance.of_grid(text_of(runs(numbers)), columns, classes, truncation, scale=scale, labels=labels)

    async def make() -> Response:
        inputs, each_bytes = Seeds.of(numbers, classes, truncation), picture_bytes(resolved, scale)
        made = await sampler.gather(resolved, inputs, None, deadline, each_bytes, sent)
        data = await sampler.beside(lambda: format.encode(grid(made.images, columns, texts, scale=scale), text))
        return Whole(data, headers=headers, media_type=format.media_type)

    return await unless_client_leaves(request, make())


def names_of(resolved: Resolved, labels: Sequence[int] | None, n: int) -> list[str | None]:
    """The class of each of n samples."""
    return [None] * n if labels is None else [resolved.info["classes"][label] for label in labels]
