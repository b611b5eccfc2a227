"""Batches: many samples, made in the background, as files."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session

from app import batches, tables
from app.batches import archives
from app.batches.containers import CONTAINERS
from app.errors import InvalidState, NotFound
from app.http.clearing import clearing
from app.http.deps import BellDep, DatabaseDep, StorageDep
from app.http.downloads import send_bytes, send_object
from app.http.idempotency import Created, OnceDep
from app.http.parameters import LATEST, BatchRef, Cursor, Limit
from app.http.routing import StrictRoute
from app.paging import DEFAULT_LIMIT
from app.schemas.base import Page, Responses, problems
from app.schemas.batches import MEDIA_TYPES, Batch, BatchManifest, BatchRequest, Status

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute)

ShardIndex = Annotated[int, Path(ge=0, le=10**9, description="From 0 on.", openapi_examples={"0": {"value": 0}})]
BINARY = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES}
FILE: Responses = {
    200: {"description": "The file.", "content": BINARY},
    206: {"description": "The range that was asked for", "content": BINARY},
    304: {"description": "Unchanged"},
}
DOWNLOAD = FILE | problems(404, 409, 410, 416, 422)


@router.post(
    "",
    status_code=202,
    response_model=Batch,
    responses=problems(404, 409, 410, 422),
    summary="Make a batch",
)
def create_batch(body: BatchRequest, database: DatabaseDep, bell: BellDep, once: OnceDep) -> JSONResponse:
    """The samples of up to a million seeds, each the very file that it is at its own address, as `archive` and in `shards`.

    They are made from the version that the reference means now, which cannot be deleted before the batch has ended. The files
    are kept until `expires_at`.
    """
    asked = body.model_dump(mode="json", exclude_none=True)
    with database.writing() as session:
        response = once.answer(session, asked, lambda: _created(batches.submit(session, batches.Request(**asked))))
    bell.ring("batch")
    return response


def _created(row: tables.Batch) -> Created:
    return Created(202, Batch.of(row), f"/v1/batches/{row.id}")


@router.get("", responses=problems(422), summary="List batches")
def list_batches(
    database: DatabaseDep,
    status: Annotated[Status | None, Query(description="Only batches of this status.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Batch]:
    """Newest first, without those that were deleted or have expired."""
    with database.reading() as session:
        rows, next_cursor = batches.list_batches(session, status=status, limit=limit, cursor=cursor)
        return Page(data=[Batch.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{batch}", responses=problems(404, 410, 422), summary="Look at a batch")
def get_batch(batch: BatchRef, database: DatabaseDep) -> Batch:
    """Its status and progress, and what was asked for."""
    with database.reading() as session:
        return Batch.of(_find(session, batch))


@router.post("/{batch}/cancel", status_code=202, responses=problems(404, 409, 410, 422), summary="Cancel a batch")
def cancel_batch(batch: BatchRef, database: DatabaseDep, storage: StorageDep) -> Batch:
    """A running one stops at its worker's next look. What was made of it is deleted."""
    with database.writing() as session:
        row = batches.cancel(session, _find(session, batch).id)
        view = Batch.of(row)
    if row.status == "cancelled":
        with clearing(row.id):
            storage.delete_prefix(batches.prefix(row.id))
    return view


@router.delete("/{batch}", status_code=204, responses=problems(404, 410, 422), summary="Delete a batch")
def delete_batch(batch: BatchRef, database: DatabaseDep, storage: StorageDep) -> None:
    """With its files, whatever its status is."""
    with database.writing() as session:
        prefix = batches.delete(session, _find(session, batch).id)
    with clearing(prefix):
        storage.delete_prefix(prefix)


@router.get("/{batch}/manifest", responses=problems(404, 410, 422), summary="See what is in a batch")
def get_batch_manifest(batch: BatchRef, database: DatabaseDep) -> BatchManifest:
    """Size, sha256 and seeds of each shard that is stored, and of the archive once there is one; what they were made by."""
    with database.reading() as session:
        row = _find(session, batch)
        return BatchManifest.of(row, [*batches.shards(session, row.id)])


@router.head("/{batch}/archive", include_in_schema=False)
@router.get("/{batch}/archive", response_class=Response, responses=DOWNLOAD, summary="Download a batch")
def get_batch_archive(request: Request, batch: BatchRef, database: DatabaseDep, storage: StorageDep) -> Response:
    """All shards as one file: a tar or a zip of all samples, or a tar whose members are the npz or parquet files.

    The ETag is the file's sha256; a broken download goes on with `Range`.
    """
    with database.reading() as session:
        row = _find(session, batch)
        if row.archive is None:
            raise InvalidState(f"Batch {row.id} has no archive: it is {row.status}.", row.status)
        parts = archives.pieces(row, batches.shards(session, row.id), row.archive["directory"])
    container, size = CONTAINERS[row.options["container"]], row.archive["size"]
    return send_bytes(
        request,
        lambda: size,
        lambda start, end: archives.stream(storage, parts, start, end),
        sha256=row.archive["sha256"],
        media_type=container.archive_media_type,
        filename=f"{row.id}.{container.archive_extension}",
    )


@router.head("/{batch}/shards/{index}", include_in_schema=False)
@router.get("/{batch}/shards/{index}", response_class=Response, responses=DOWNLOAD, summary="Download a shard")
def get_batch_shard(
    request: Request, batch: BatchRef, index: ShardIndex, database: DatabaseDep, storage: StorageDep
) -> Response:
    """One file of a batch, also while the others are being made. The ETag is the file's sha256."""
    with database.reading() as session:
        row = _find(session, batch)
        shard = batches.shard(session, row, index)
    return send_object(
        request,
        storage,
        shard.key,
        sha256=shard.sha256,
        media_type=CONTAINERS[row.options["container"]].media_type,
        filename=f"{row.id}-{archives.shard_name(row, shard)}",
        size=shard.size,
    )


def _find(session: Session, ref: str) -> tables.Batch:
    """The batch with this id, or the newest one for `latest`. Raises NotFound and Gone."""
    if ref != LATEST:
        return batches.get(session, ref)
    newest, _ = batches.list_batches(session, limit=1)
    if not newest:
        raise NotFound("There is no batch yet: POST /v1/batches makes one.")
    return newest[0]
