"""Data sets: upload, import, look, delete."""

import hashlib
import math
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from app import datasets, formats
from app.http.answers import head_of
from app.http.clearing import clearing
from app.http.deps import BellDep, DatabaseDep, SettingsDep, StorageDep
from app.http.downloads import not_modified
from app.http.idempotency import Created, OnceDep
from app.http.openapi import without_null
from app.http.parameters import Cursor, DatasetRef, Limit
from app.http.routing import StrictRoute
from app.http.uploads import Upload, incoming, receive_upload
from app.paging import DEFAULT_LIMIT
from app.preview import preview_examples
from app.schemas.base import Page, binary, problems
from app.schemas.datasets import Dataset, ImportRequest, UploadForm
from models.pictures import tile

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StrictRoute)

PREVIEW_PIXELS = 512  # small examples are enlarged to about this width or height
PREVIEW_MAX_SCALE = 8


def _form_schema() -> dict[str, Any]:
    """The multipart body, which FastAPI does not see because we read it ourselves."""
    fields = {name: without_null(field) for name, field in UploadForm.model_json_schema()["properties"].items()}
    file = {"type": "string", "format": "binary", "description": "zip, tar, tar.gz or npz; folders are classes."}
    return {
        "type": "object",
        "required": ["file"],
        "properties": {"file": file} | fields,
        "additionalProperties": False,
    }


async def _receive(request: Request, settings: SettingsDep, _: OnceDep) -> AsyncIterator[Upload]:
    fields = frozenset(UploadForm.model_fields)
    async with receive_upload(request, incoming(settings), fields) as upload:
        yield upload


@router.post(
    "",
    status_code=202,
    response_model=Dataset,
    responses=problems(409, 422, 507),
    summary="Upload a data set",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form_schema()}}}},
)
def upload_dataset(
    upload: Annotated[Upload, Depends(_receive, scope="function")],
    database: DatabaseDep,
    storage: StorageDep,
    bell: BellDep,
    once: OnceDep,
) -> JSONResponse:
    """An archive of images (zip, tar, tar.gz) or of arrays (npz), prepared in the background.

    Folders are classes, unless a `metadata.csv` or `metadata.jsonl` in it gives a `label` to each `file_name`.
    """
    form = _parse_form(upload.fields)
    asked = {"sha256": upload.sha256, "filename": upload.filename} | form.model_dump(mode="json")
    with database.reading() as session:
        replayed = once.replay(session, asked)
    if replayed is not None:
        return replayed
    with (
        datasets.stored_upload(storage, path=upload.path, filename=upload.filename) as stored,
        database.writing() as session,
    ):
        response = once.answer(
            session,
            asked,
            lambda: _created(datasets.register_upload(session, stored, **form.model_dump())),
        )
    bell.ring("io")
    return response


def _parse_form(fields: dict[str, str]) -> UploadForm:
    given = {name: value for name, value in fields.items() if value}  # a browser sends what was left empty as ""
    try:
        return UploadForm.model_validate(given)
    except ValidationError as error:
        errors = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(errors, body=given) from error


@router.post(
    "/import",
    status_code=202,
    response_model=Dataset,
    responses=problems(409, 422),
    summary="Import a data set",
)
def import_dataset(body: ImportRequest, database: DatabaseDep, bell: BellDep, once: OnceDep) -> JSONResponse:
    """A data set that comes with the service, prepared in the background."""
    with database.writing() as session:
        response = once.answer(
            session,
            body.model_dump(mode="json"),
            lambda: _created(datasets.register_builtin(session, body.source.name, name=body.name)),
        )
    bell.ring("io")
    return response


def _created(row: Any) -> Created:
    return Created(202, Dataset.of(row), f"/v1/datasets/{row.id}")


@router.get("", responses=problems(422), summary="List data sets")
def list_datasets(database: DatabaseDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Dataset]:
    """Newest first."""
    with database.reading() as session:
        rows, next_cursor = datasets.list_datasets(session, limit=limit, cursor=cursor)
        return Page(data=[Dataset.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{dataset}", responses=problems(404, 410, 422), summary="Look at a data set")
def get_dataset(dataset: DatasetRef, database: DatabaseDep) -> Dataset:
    """Its status, and once it is `ready` its classes, its shape and the report of what was skipped or converted."""
    with database.reading() as session:
        return Dataset.of(datasets.get(session, dataset))


@router.delete("/{dataset}", status_code=204, responses=problems(404, 409, 410, 422), summary="Delete a data set")
def delete_dataset(dataset: DatasetRef, database: DatabaseDep, storage: StorageDep) -> None:
    """Refused while an unfinished job uses it; a preparation under way ends. Models that learned from it stay."""
    with database.writing() as session:
        prefix = datasets.delete(session, dataset)
    with clearing(prefix):
        storage.delete_prefix(prefix)


@router.head("/{dataset}/preview.png", include_in_schema=False)
@router.get(
    "/{dataset}/preview.png",
    response_class=Response,
    responses=binary("image/png") | problems(404, 409, 410, 422),
    summary="See real examples",
)
def preview_dataset(
    request: Request,
    dataset: DatasetRef,
    database: DatabaseDep,
    storage: StorageDep,
    n: Annotated[int, Query(ge=1, le=256, description="How many, spread evenly.")] = 64,
    class_name: Annotated[
        str | None, Query(alias="class", max_length=200, description="Of this class alone, by name or index.")
    ] = None,
) -> Response:
    """A grid of examples as they are learned from, shrunk where they are many and large."""
    with database.reading() as session:
        row = datasets.get(session, dataset)
    content = hashlib.sha256(repr((row.id, row.sha256, n, class_name)).encode()).hexdigest()
    headers = {"ETag": f'"{content[:40]}"', "Cache-Control": "private, no-cache"}
    if row.sha256 is not None and (unchanged := not_modified(request, headers)) is not None:
        return unchanged
    images = preview_examples(storage, row, n, class_name)
    if request.method == "HEAD":
        return head_of(headers, "image/png")
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    scale = max(1, min(PREVIEW_MAX_SCALE, PREVIEW_PIXELS // max(columns * width, columns * height, 1)))
    return Response(formats.encode(tile(images, columns, scale=scale), "png"), headers=headers, media_type="image/png")
