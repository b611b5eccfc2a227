"""POST /v1/samples/inspect: where does this picture come from, and does it still come from there?"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from app.errors import Gone, Invalid, InvalidState, NotFound, TooLarge
from app.http.answers import unless_client_leaves
from app.http.deps import ReferencesDep, SamplerDep, SettingsDep
from app.http.routing import StrictRoute
from app.http.uploads import Upload, incoming, receive_upload
from app.inspection import MAX_FILE_BYTES, Difference, PictureFile, Plan, check_made_by, compare, look, plan
from app.provenance import Statement
from app.registry import Resolved
from app.sampling import Sampler
from app.schemas.base import problems
from app.schemas.inspections import Inspection

PATH = "/v1/samples/inspect"
BODY_LIMIT_BYTES = MAX_FILE_BYTES + 2**16  # with the form around it

router = APIRouter(tags=["samples"], route_class=StrictRoute)

FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP or AVIF."}},
    "additionalProperties": False,
}


async def _receive(request: Request, settings: SettingsDep) -> AsyncIterator[Upload]:
    async with receive_upload(request, incoming(settings), frozenset()) as upload:
        yield upload


@router.post(
    PATH,
    summary="Inspect a picture",
    response_model=Inspection,
    responses=problems(413, 422, 429, 507),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}},
)
async def inspect_sample(
    request: Request,
    upload: Annotated[Upload, Depends(_receive, scope="function")],
    references: ReferencesDep,
    sampler: SamplerDep,
    settings: SettingsDep,
) -> Response:
    """What a picture says of itself (model, version, seed, class, truncation), and whether that gives the same picture now.

    What is compared is made again, and waits its turn for it like any other sample.
    """
    file = await run_in_threadpool(_look, upload)

    async def inspect() -> Response:
        found = await _inspect(file, references, sampler, settings)
        return JSONResponse(found.model_dump(mode="json", by_alias=True))

    return await unless_client_leaves(request, inspect())


def _look(upload: Upload) -> PictureFile:
    if upload.size > MAX_FILE_BYTES:
        raise TooLarge(f"A picture has at most {MAX_FILE_BYTES} bytes here; this one has {upload.size}.")
    return look(upload.path.read_bytes())


async def _inspect(file: PictureFile, references: ReferencesDep, sampler: Sampler, settings: SettingsDep) -> Inspection:
    said = file.statement
    if said is None:
        return Inspection(
            provenance=None, found=False, reproduced=None, reason="The picture says nothing of where it comes from."
        )
    try:
        resolved = await references.resolve(said.model)
        check_made_by(said, resolved)
    except (NotFound, Gone, InvalidState) as error:
        return Inspection(provenance=said, found=False, reproduced=None, reason=error.detail)
    try:
        planned = plan(file, said, resolved, settings.sync_generation_limit)
    except Invalid as error:
        return Inspection(provenance=said, found=True, reproduced=None, reason=error.detail)
    if (why := planned.differs_at_sight(file)) is not None:
        return Inspection(provenance=said, found=True, reproduced=False, reason=why)
    try:
        difference = await _made_again(file, planned, resolved, sampler)
    except Gone as error:  # deleted meanwhile
        return Inspection(provenance=said, found=False, reproduced=None, reason=error.detail)
    now = await sampler.provenance(resolved, planned.format)
    return _judged(said, difference, planned, now.engine)


async def _made_again(file: PictureFile, planned: Plan, resolved: Resolved, sampler: Sampler) -> Difference:
    samples = await sampler.generate(resolved, planned.seeds, planned.labels, planned.statement.truncation)
    return await run_in_threadpool(lambda: compare(file, planned.make(samples.images)))


def _judged(said: Statement, difference: Difference, planned: Plan, engine_now: str) -> Inspection:
    same = difference.pixels == 0
    pixels = planned.height * planned.width
    if same:
        reason = "The same picture is made now, pixel for pixel."
    else:
        reason = f"{difference.pixels} of {pixels} pixels differ, by at most {difference.largest} of 255."
        if said.engine != engine_now:
            reason += " It was made by another engine (device, threads or versions), whose bits may differ a little."
        elif not planned.format.lossless:
            reason += " Another version of its encoder may differ a little."
    return Inspection(
        provenance=said,
        found=True,
        reproduced=same,
        differing_pixels=difference.pixels,
        max_difference=difference.largest,
        reason=reason,
    )
