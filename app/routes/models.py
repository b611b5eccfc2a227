"""Models: versions, aliases, downloads."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app import registry
from app.http.clearing import clearing
from app.http.deps import DatabaseDep, StorageDep
from app.http.downloads import send_object
from app.http.parameters import AliasName, Cursor, Limit, ModelName, ModelRef
from app.http.routing import StrictRoute
from app.names import ID_PREFIXES
from app.paging import DEFAULT_LIMIT
from app.schemas.base import Page, binary, problems
from app.schemas.models import Alias, AliasRequest, Model, Snapshot

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)

MEDIA_TYPE = "application/octet-stream"
FILE = binary(MEDIA_TYPE)
FILE[206] = FILE[200] | {"description": "The range that was asked for"}


@router.get("", responses=problems(422), summary="List models")
def list_models(database: DatabaseDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[Model]:
    """By name, with their versions (newest first) and aliases."""
    with database.reading() as session:
        found, next_cursor = registry.list_models(session, limit=limit, cursor=cursor)
        return Page(data=[Model.of(model) for model in found], next_cursor=next_cursor)


@router.get("/{ref}", responses=problems(404, 409, 410, 422), summary="Look at a model")
def get_model(ref: ModelRef, database: DatabaseDep) -> Snapshot:
    """The snapshot that a reference means now, and the model it belongs to."""
    with database.reading() as session:
        return Snapshot.of(registry.resolve(session, ref), _published(session, ref))


def _published(session: Session, ref: str) -> registry.Model | None:
    if ref.startswith(ID_PREFIXES):
        return None
    name, _, _ = registry.parse(ref)
    return registry.get_model(session, name)


@router.delete("/{ref}", status_code=204, responses=problems(404, 409, 410, 422), summary="Delete a model or a version")
def delete_model(ref: ModelRef, database: DatabaseDep, storage: StorageDep) -> None:
    """`name:3` deletes that version, a bare name all of them. Refused while an alias points at one."""
    with database.writing() as session:
        keys = registry.delete(session, ref)
    with clearing(ref):
        storage.delete(keys)


@router.put("/{name}/aliases/{alias}", responses=problems(404, 410, 422), summary="Set an alias")
def put_alias(name: ModelName, alias: AliasName, body: AliasRequest, database: DatabaseDep) -> Alias:
    """Points `name@alias` at a version, at once; images by that address are then of that version."""
    with database.writing() as session:
        row = registry.put_alias(session, name, alias, body.version)
        return Alias(ref=f"{row.name}@{row.alias}", version=row.version, updated_at=row.updated_at)


@router.delete("/{name}/aliases/{alias}", status_code=204, responses=problems(404, 422), summary="Delete an alias")
def delete_alias(name: ModelName, alias: AliasName, database: DatabaseDep) -> None:
    """The version stays."""
    with database.writing() as session:
        registry.delete_alias(session, name, alias)


@router.head("/{ref}/download", include_in_schema=False)
@router.get(
    "/{ref}/download",
    response_class=Response,
    responses=FILE | problems(404, 409, 410, 416, 422),
    summary="Download a model",
)
def download_model(
    request: Request,
    ref: ModelRef,
    database: DatabaseDep,
    storage: StorageDep,
    file_format: Annotated[Literal["safetensors"], Query(alias="format")] = "safetensors",
) -> Response:
    """The generator's weights. The ETag is their sha256; a broken download goes on with `Range`."""
    with database.reading() as session:
        found = registry.resolve(session, ref)
    return send_object(
        request,
        storage,
        f"{found.snapshot_key}/generator.{file_format}",
        sha256=found.sha256,
        media_type=MEDIA_TYPE,
        filename=f"{found.label.replace(':', '-')}.{file_format}",
    )
