"""Models: versions, aliases, downloads."""

import hashlib
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app import registry
from app.exporting import Exporter
from app.http.answers import head_of
from app.http.clearing import clearing
from app.http.deps import DatabaseDep, ExporterDep, KeeperDep, ReferencesDep, SamplerDep, StorageDep
from app.http.downloads import send_object
from app.http.parameters import AliasName, Cursor, Limit, ModelName, ModelRef
from app.http.routing import StrictRoute
from app.names import ID_PREFIXES
from app.paging import DEFAULT_LIMIT
from app.schemas.base import Page, binary, problems
from app.schemas.models import Alias, AliasRequest, Model, Pin, Snapshot
from app.storage import Storage
from models.manifest import MANIFEST, WEIGHTS

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)

FileFormat = Literal["safetensors", "manifest", "onnx"]

EXTENSIONS: dict[FileFormat, str] = {"safetensors": "safetensors", "manifest": "json", "onnx": "onnx"}
BINARY, JSON = "application/octet-stream", "application/json"
FILE = binary(BINARY)
FILE[200]["content"][JSON] = {"schema": {"type": "object"}}
FILE[206] = binary(BINARY)[200] | {"description": "The range that was asked for"}
FILE[206]["content"][JSON] = {"schema": {}}


@router.get("", responses=problems(422), summary="List models")
def list_models(
    database: DatabaseDep,
    sampler: SamplerDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    loaded: Annotated[
        bool | None,
        Query(description="Only those of which the process that answers has a version in memory, or has none."),
    ] = None,
) -> Page[Model]:
    """By name, with their versions (newest first), aliases and pins."""
    here = sampler.cache.sizes()
    only = {} if loaded is None else {"among": here} if loaded else {"without": here}
    with database.reading() as session:
        found, next_cursor = registry.list_models(session, limit=limit, cursor=cursor, **only)
        return Page(data=[Model.of(model, here) for model in found], next_cursor=next_cursor)


@router.get("/{ref}", responses=problems(404, 409, 410, 422), summary="Look at a model")
def get_model(ref: ModelRef, database: DatabaseDep, sampler: SamplerDep) -> Snapshot:
    """The snapshot that a reference means now, and the model it belongs to."""
    with database.reading() as session:
        found, kept = registry.resolve(session, ref), registry.is_pinned(session, ref)
        return Snapshot.of(found, _published(session, ref), sampler.cache.sizes(), kept_loaded=kept)


def _published(session: Session, ref: str) -> registry.Model | None:
    if ref.startswith(ID_PREFIXES):
        return None
    name, _, _ = registry.parse(ref)
    return registry.get_model(session, name)


@router.put("/{ref}/pin", responses=problems(404, 409, 410, 422, 429, 503), summary="Keep a model loaded")
async def pin_model(
    ref: ModelRef, database: DatabaseDep, references: ReferencesDep, sampler: SamplerDep, keeper: KeeperDep
) -> Pin:
    """Loads what the reference means, and keeps it in memory here and, within seconds, in every other process that serves samples:
    also after a restart, and what an alias or a bare name means later, before it is asked for.
    """
    resolved = await references.resolve(ref)
    await keeper.check_room(resolved)

    def write() -> None:
        with database.writing() as session:
            registry.pin(session, ref)

    await run_in_threadpool(write)
    await keeper.keep()
    return Pin(ref=ref, version=resolved.label, bytes=sampler.cache.sizes().get(resolved.sha256, 0))


@router.delete("/{ref}/pin", status_code=204, responses=problems(404, 422), summary="Let a model go")
async def unpin_model(ref: ModelRef, database: DatabaseDep, keeper: KeeperDep) -> None:
    """It stays in memory until others need the room."""

    def write() -> None:
        with database.writing() as session:
            registry.unpin(session, ref)

    await run_in_threadpool(write)
    await keeper.keep()


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
    responses=FILE | problems(404, 409, 410, 416, 422, 429, 500, 501, 507),
    summary="Download a model",
)
def download_model(
    request: Request,
    ref: ModelRef,
    database: DatabaseDep,
    storage: StorageDep,
    exporter: ExporterDep,
    file_format: Annotated[FileFormat, Query(alias="format", description="Which of the files.")] = "safetensors",
) -> Response:
    """The generator in one of three files. The ETag is the file's sha256; a broken download goes on with `Range`.

    - `safetensors`: the weights, as they are stored.
    - `manifest`: what they are: network, classes, config, data set hash, metrics. Saved as `model.json` in one folder with the
      weights as `generator.safetensors`, it is all that `models.generator.load_generator(folder)` needs to sample in Python.
    - `onnx`: the whole generator for ONNX Runtime and the like, opset 18. From `z`, float32 [n, z_dim] of standard normal values,
      and for a conditional model `labels`, int64 [n] with the numbers of classes, it makes `images`, float32 [n, C, H, W] in
      [-1, 1]. It is made when it is first asked for, which takes some seconds, and is compared with our own images for every
      class, or some hundreds of very many, before it is given out: the metadata say how large the difference was, beside
      `family`, `classes`, `dataset_sha256`, `generator_sha256` and `ganvil_version`. `HEAD` makes nothing: before that it
      tells neither length nor ETag.
    """
    with database.reading() as session:
        found = registry.resolve(session, ref)
    media_type = JSON if file_format == "manifest" else BINARY
    if request.method == "HEAD" and file_format == "onnx" and exporter.stored_onnx(found) is None:
        return head_of({}, media_type)
    file = _find_file(storage, exporter, found, file_format)
    return send_object(
        request,
        storage,
        file.key,
        size=file.size,
        sha256=file.sha256,
        media_type=media_type,
        filename=f"{found.label.replace(':', '-')}.{EXTENSIONS[file_format]}",
    )


class _File(NamedTuple):
    """An object, or the first `size` bytes of one."""

    key: str
    size: int | None
    sha256: str


def _find_file(storage: Storage, exporter: Exporter, found: registry.Resolved, file_format: FileFormat) -> _File:
    match file_format:
        case "safetensors":
            return _File(f"{found.snapshot_key}/{WEIGHTS}", None, found.sha256)
        case "manifest":
            key = f"{found.snapshot_key}/{MANIFEST}"
            return _File(key, None, hashlib.sha256(storage.get_bytes(key)).hexdigest())
        case "onnx":
            return _File(*exporter.onnx(found))
