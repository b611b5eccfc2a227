"""POST /v1/generations: many samples in one answer, in the form that the Accept header asks for."""

import base64
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.bundles import Bundle
from app.errors import FieldError, Invalid
from app.formats import BY_MEDIA_TYPE, FORMATS, Format, check_grid
from app.http.answers import sample_headers, unless_client_leaves
from app.http.deps import ReferencesDep, SamplerDep, SettingsDep
from app.http.negotiation import choose_media_type
from app.http.parameters import Deadline
from app.http.routing import StrictRoute
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Samples, Seeds
from app.sampling.labels import index_of
from app.sampling.seeds import check_all, consecutive, draw, parse
from app.schemas.base import problems
from app.schemas.generations import Generation, GenerationRequest
from models.pictures import tile

router = APIRouter(prefix="/v1", tags=["samples"], route_class=StrictRoute)

JSON = "application/json"
ZIP = "application/zip"
NPZ = "application/x-npz"
FORMS = [JSON, *BY_MEDIA_TYPE, ZIP, NPZ]
BINARY = {"schema": {"type": "string", "format": "binary"}}
MAX_BYTES = 2**28  # of pixels in one answer, in whatever form: they may all lie in memory at once
IN_ANY_FORM: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(FORMS[1:], BINARY)}}


@dataclass(frozen=True)
class Order:
    """A request that was checked."""

    resolved: Resolved
    seeds: list[int]
    labels: list[int] | None
    truncation: float
    format: Format
    grid: bool
    deadline_seconds: float | None

    def class_names(self, samples: Samples) -> list[str | None]:
        return [self.class_name(None if samples.labels is None else samples.labels[at]) for at in range(len(samples))]

    def class_name(self, label: int | None) -> str | None:
        return None if label is None else self.resolved.info["classes"][label]

    def stream(self, sampler: Sampler, *, files: bool) -> AsyncGenerator[Samples, None]:
        """The samples as they are made, with their files if wanted."""
        encoding = Encoding(self.format, self.describe) if files else None
        inputs = Seeds.of(self.seeds, self.labels, self.truncation)
        return sampler.stream(self.resolved, inputs, encoding, self.deadline_seconds)

    async def make(self, sampler: Sampler, *, files: bool) -> Samples:
        encoding = Encoding(self.format, self.describe) if files else None
        inputs = Seeds.of(self.seeds, self.labels, self.truncation)
        return await sampler.gather(self.resolved, inputs, encoding, self.deadline_seconds)

    def describe(self, row: int, label: int | None) -> str | None:
        """What a file says of itself."""
        return None


class Download(StreamingResponse):
    """Sends `first` and the pieces that follow, and closes them in any case: one who hangs up gives the place back at once."""

    def __init__(
        self, first: bytes, pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(_chain(first, pieces), media_type=media_type, headers=headers)
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.pieces):
            await super().__call__(scope, receive, send)


async def _chain(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in pieces:
        yield piece


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
    deadline: Deadline = None,
) -> Response:
    """By Accept: JSON with base64 (the default), an image (a grid when there are more), a zip of files with a manifest, or an
    npz of `images` uint8 [n, H, W, C], `seeds` int64 and `classes` int64 (indices; -1 without classes).
    """
    offered = FORMS if body.format is None else [JSON, FORMATS[body.format].media_type, ZIP, NPZ]
    media_type = choose_media_type(request.headers.get("Accept"), offered)
    seeds = seeds_of(body, settings.sync_generation_limit)
    resolved = await references.resolve(body.model)
    check_pixels(body, resolved, len(seeds))
    order = Order(
        resolved=resolved,
        seeds=seeds,
        labels=labels_of(body, resolved, len(seeds)),
        truncation=body.truncation,
        format=BY_MEDIA_TYPE.get(media_type) or FORMATS[body.format or "png"],
        grid=wants_grid(body, media_type, len(seeds)),
        deadline_seconds=deadline,
    )
    if order.grid:
        shape = {"height": resolved.info["height"], "width": resolved.info["width"]}
        check_grid(len(seeds), columns_of(seeds), 1, format=order.format, **shape)
    response = await unless_client_leaves(request, ANSWERS.get(media_type, answer_image)(order, sampler))
    response.headers["X-Model-Version"] = resolved.label
    return response


def seeds_of(body: GenerationRequest, limit: int) -> list[int]:
    """The seeds that a request means, at most `limit`. Raises Invalid."""
    if body.seeds is None:
        n = body.n or 1
        return draw(n, limit=limit) if body.seed is None else consecutive(body.seed, n, limit=limit)
    for name in ("n", "seed"):
        if getattr(body, name) is not None:
            raise _invalid(f"#/{name}", f"Give either seeds, or seed and n: seeds and {name} contradict each other.")
    return parse(body.seeds, limit=limit) if isinstance(body.seeds, str) else check_all(body.seeds, limit=limit)


def check_pixels(body: GenerationRequest, resolved: Resolved, n: int) -> None:
    """Raise Invalid, saying how many samples of this model one answer may have, when `n` are more."""
    info = resolved.info
    most = max(1, MAX_BYTES // (info["height"] * info["width"] * info["channels"]))
    if n > most:
        size = f"{info['width']} x {info['height']} x {info['channels']}"
        detail = f"{n} samples of {size} are too many for one answer: ask for at most {most} of this model."
        raise _invalid("#/n" if body.seeds is None else "#/seeds", detail)


def labels_of(body: GenerationRequest, resolved: Resolved, n: int) -> list[int] | None:
    """A class index for each of n samples; None leaves them to the seeds. Raises Invalid."""
    known = resolved.info["classes"]
    if body.classes is None:
        return None if body.class_ is None else [index_of(known, body.class_)] * n
    if body.class_ is not None:
        raise _invalid("#/classes", "Give either class or classes.")
    if len(body.classes) != n:
        raise _invalid("#/classes", f"There are {len(body.classes)} classes for {n} samples: give one for each.")
    return [index_of(known, wanted, pointer=f"#/classes/{index}") for index, wanted in enumerate(body.classes)]


def wants_grid(body: GenerationRequest, media_type: str, n: int) -> bool:
    """Whether the answer is one picture of all. Raises Invalid when the layout does not fit the form of the answer."""
    if media_type in {ZIP, NPZ} and body.layout == "grid":
        raise _invalid("#/layout", f"A grid is one picture: accept image/* or {JSON} for it.")
    if media_type in BY_MEDIA_TYPE and n > 1 and body.layout == "separate":
        raise _invalid("#/layout", f"{n} separate pictures are not one image: accept {ZIP}, {NPZ} or {JSON} for them.")
    return body.layout == "grid" or (media_type in BY_MEDIA_TYPE and n > 1)


def columns_of(seeds: list[int]) -> int:
    """Of a grid as square as can be."""
    return math.isqrt(len(seeds) - 1) + 1


async def answer_image(order: Order, sampler: Sampler) -> Response:
    """One picture; X-Seed is the (first) seed."""
    samples = await order.make(sampler, files=not order.grid)
    if samples.files is None:
        data = await encode_grid(order, samples, sampler)
        return Response(data, headers=sample_headers(order.seeds[0], None), media_type=order.format.media_type)
    (data,) = samples.files
    headers = sample_headers(order.seeds[0], order.class_names(samples)[0])
    return Response(data, headers=headers, media_type=order.format.media_type)


async def encode_grid(order: Order, samples: Samples, sampler: Sampler) -> bytes:
    """All samples in one picture."""
    return await sampler.beside(lambda: order.format.encode(tile(samples.images, columns_of(order.seeds))))


async def answer_json(order: Order, sampler: Sampler) -> Response:
    """The files as base64."""
    samples = await order.make(sampler, files=not order.grid)
    files: Sequence[bytes | None] = samples.files or [None] * len(samples)
    grid = await encode_grid(order, samples, sampler) if order.grid else None

    def write() -> bytes:
        each = zip(order.seeds, order.class_names(samples), files, strict=True)
        document = {
            "model": order.resolved.label,
            "truncation": order.truncation,
            "media_type": order.format.media_type,
            "samples": [{"seed": seed, "class": name, "data": _base64(data)} for seed, name, data in each],
            "grid": _base64(grid),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    return Response(await run_in_threadpool(write), media_type=JSON)


async def answer_zip(order: Order, sampler: Sampler) -> Response:
    """A file for each sample, and manifest.json; sent while it is made."""

    async def write(bundle: Bundle, parts: AsyncGenerator[Samples, None]) -> AsyncGenerator[bytes, None]:
        entries: list[dict[str, Any]] = []
        async for samples in parts:
            done = len(entries)
            seeds = order.seeds[done : done + len(samples)]
            for seed, name, data in zip(seeds, order.class_names(samples), samples.files or (), strict=True):
                file = f"{len(entries):05d}-{seed}.{order.format.extension}"
                entries.append({"file": file, "seed": seed, "class": name})
                bundle.add(file, data)
            yield bundle.drain()
        manifest = {
            "model": order.resolved.label,
            "sha256": order.resolved.sha256,
            "truncation": order.truncation,
            "media_type": order.format.media_type,
            "samples": entries,
        }
        bundle.add("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1).encode())

    return await _sent_while_made(order, order.stream(sampler, files=True), write, ZIP, "zip")


async def answer_npz(order: Order, sampler: Sampler) -> Response:
    """The pixels themselves; sent while they are made."""

    async def write(bundle: Bundle, parts: AsyncGenerator[Samples, None]) -> AsyncGenerator[bytes, None]:
        info, n = order.resolved.info, len(order.seeds)
        labels: list[int] = []
        with bundle.array("images", (n, info["height"], info["width"], info["channels"]), np.uint8) as append:
            async for samples in parts:
                append(samples.images)
                labels += [-1] * len(samples) if samples.labels is None else samples.labels
                yield bundle.drain()
        for name, numbers in (("seeds", order.seeds), ("classes", labels)):
            with bundle.array(name, (n,), np.int64) as append:
                append(np.array(numbers, np.int64))

    return await _sent_while_made(order, order.stream(sampler, files=False), write, NPZ, "npz")


ANSWERS: dict[str, Callable[[Order, Sampler], Coroutine[Any, Any, Response]]] = {
    JSON: answer_json,
    ZIP: answer_zip,
    NPZ: answer_npz,
}

Write = Callable[[Bundle, AsyncGenerator[Samples, None]], AsyncGenerator[bytes, None]]


async def _sent_while_made(
    order: Order, stream: AsyncGenerator[Samples, None], write: Write, media_type: str, extension: str
) -> Response:
    """A download whose first bytes exist already: what can go wrong has gone wrong before the status is sent."""

    async def make() -> AsyncGenerator[bytes, None]:
        bundle = Bundle()
        async with aclosing(stream) as parts, aclosing(write(bundle, parts)) as pieces:
            async for piece in pieces:
                yield piece
        yield bundle.close()

    pieces = make()
    first = await anext(pieces)
    name = f"{order.resolved.label.replace(':', '-')}.{extension}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Download(first, pieces, media_type=media_type, headers=headers)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, detail)])
