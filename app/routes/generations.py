"""POST /v1/generations: many samples in one answer, in the form that the Accept header asks for."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.formats import BY_MEDIA_TYPE, FORMATS, format_with
from app.http.answers import unless_client_leaves
from app.http.deps import ReferencesDep, SamplerDep, SentDep, SettingsDep
from app.http.forms import ANSWERS, JSON, LINES, MIXED, NPZ, RAW, ZIP, answer_image
from app.http.negotiation import choose_media_type
from app.http.orders import Order, check_size, columns_of, invalid, labels_of, latents_of, seeds_of
from app.http.parameters import Deadline
from app.http.routing import StrictRoute
from app.registry import Resolved
from app.sampling import Sampler, Sent
from app.sampling.labels import of_seeds
from app.schemas.base import problems
from app.schemas.generations import Generation, GenerationRequest

router = APIRouter(prefix="/v1", tags=["samples"], route_class=StrictRoute)

PICTURES = [media_type for media_type in BY_MEDIA_TYPE if media_type != RAW]
FORMS = [JSON, *PICTURES, ZIP, NPZ, LINES, MIXED, RAW]
BINARY = {"schema": {"type": "string", "format": "binary"}}
IN_ANY_FORM: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(FORMS[1:], BINARY)}}


@router.post(
    "/generations",
    summary="Generate samples",
    response_model=Generation,
    responses=IN_ANY_FORM | problems(404, 406, 409, 410, 422, 429, 504),
)
async def generate(
    request: Request,
    body: GenerationRequest,
    references: ReferencesDep,
    sampler: SamplerDep,
    settings: SettingsDep,
    sent: SentDep,
    deadline: Deadline = None,
) -> Response:
    """By Accept: JSON with base64 (the default), an image (a grid when there are more), a zip of files with a manifest, an npz of
    `images` uint8 [n, H, W, C], `seeds` int64 and `classes` int64 (indices; -1 without classes), or the bare bytes of `images`.
    As they are made: lines of JSON (`application/x-ndjson`), or a part for each file (`multipart/mixed`).
    """
    given = "This" if body.format is None else f"The format {body.format}"
    media_type = choose_media_type(request.headers.get("Accept"), offered(body), given=given)
    seeds = seeds_of(body, settings.sync_generation_limit)
    resolved = await references.resolve(body.model)
    order = await order_of(body, resolved, sampler, media_type, seeds, settings.sync_generation_limit, deadline, sent)
    check_size(body, order, base64=media_type == JSON)
    answer = ANSWERS.get(media_type, answer_image)
    response = await unless_client_leaves(request, answer(order, sampler))
    response.headers["X-Model-Version"] = resolved.label
    return response


def offered(body: GenerationRequest) -> list[str]:
    """The forms that fit a request: where it names a format, pictures are of that one."""
    if body.format is None:
        return FORMS
    own = FORMATS[body.format].media_type
    return [form for form in FORMS if form not in {*PICTURES, RAW} or form == own]


async def order_of(
    body: GenerationRequest,
    resolved: Resolved,
    sampler: Sampler,
    media_type: str,
    seeds: list[int] | None,
    limit: int,
    deadline: float | None,
    sent: Sent,
) -> Order:
    """The request, checked but for the size of the answer. Raises Invalid."""
    z = None if body.z is None else await run_in_threadpool(latents_of, body, resolved.info["z_dim"], limit)
    rows = z if seeds is None else seeds
    assert rows is not None, "either seeds or z"
    n = len(rows)
    name = BY_MEDIA_TYPE[media_type].name if media_type in BY_MEDIA_TYPE else body.format or "png"
    format = format_with(name, quality=body.quality, lossless=body.lossless)  # noqa: A001
    grid = wants_grid(body, media_type, n)
    labels = labels_of(body, resolved, n)
    if body.labels and labels is None and seeds is not None:
        labels = of_seeds(resolved.info["classes"], seeds, None)
    return Order(
        resolved=resolved,
        seeds=seeds,
        z=z,
        labels=labels,
        truncation=body.truncation,
        format=format,
        scale=body.scale,
        columns=(body.columns or columns_of(n)) if grid else None,
        captions=body.labels,
        return_z=wants_z(body, media_type),
        deadline_seconds=deadline,
        provenance=await sampler.provenance(resolved, format),
        sent=sent,
    )


def wants_grid(body: GenerationRequest, media_type: str, n: int) -> bool:
    """Whether the answer is one picture of all. Raises Invalid when the layout does not fit the form of the answer."""
    if media_type not in {JSON, *PICTURES} and body.layout == "grid":
        raise invalid("#/layout", f"A grid is one picture: accept image/* or {JSON} for it.")
    if media_type in PICTURES and n > 1 and body.layout == "separate":
        raise invalid("#/layout", f"{n} separate pictures are not one image: accept {ZIP}, {NPZ} or {JSON} for them.")
    grid = body.layout == "grid" or (media_type in PICTURES and n > 1)
    if grid and body.format == "raw":
        raise invalid(
            "#/format", "A grid is a picture, and raw is none: ask for another format, or for layout separate."
        )
    if body.labels and not grid:
        raise invalid("#/labels", "Labels are written into a grid: ask for layout grid, or leave them out.")
    if body.columns is not None and not grid:
        raise invalid("#/columns", "A grid has columns: ask for layout grid, or leave them out.")
    if body.scale > 1 and media_type == NPZ:
        raise invalid("#/scale", "An npz has the samples as they are: leave the scale out.")
    return grid


def wants_z(body: GenerationRequest, media_type: str) -> bool:
    """Raise Invalid where the form of the answer has no place for it."""
    if body.return_z and media_type not in {JSON, LINES, NPZ, ZIP}:
        raise invalid("#/return_z", f"There is no place for z in {media_type}: accept {JSON}, {LINES}, {NPZ} or {ZIP}.")
    return body.return_z
