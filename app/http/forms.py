"""The forms that an answer with many samples may have: pictures, JSON, arrays, archives, and streams of them as they are made."""

import base64
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from app.bundles import Bundle
from app.http.answers import Whole, pixel_headers, sample_headers, slices
from app.http.downloads import Download
from app.http.orders import Order
from app.sampling import Sampler, Samples
from app.sampling.ranges import runs, text

JSON = "application/json"
LINES = "application/x-ndjson"
MIXED = "multipart/mixed"
ZIP = "application/zip"
NPZ = "application/x-npz"
RAW = "application/octet-stream"
MOST_SEEDS_TOLD = 4000  # characters: clients refuse to read longer headers


class DownloadAsMade(Download):
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
    for piece in slices(first):
        yield piece
    async for following in pieces:
        for piece in slices(following):
            yield piece


async def answer_image(order: Order, sampler: Sampler) -> Response:
    """One picture; X-Seed is the (first) seed."""
    samples = await order.make(sampler, files=not order.grid)
    if samples.files is None:
        data = await sampler.beside(lambda: order.picture(samples))
        return Whole(data, headers=sample_headers(order.seed(0), None), media_type=order.format.media_type)
    headers = sample_headers(order.seed(0), order.class_names(samples)[0])
    return Whole(samples.files[0], headers=headers, media_type=order.format.media_type)


async def answer_raw(order: Order, sampler: Sampler) -> Response:
    """All pixels, uint8 [n, H, W, C], as they lie; sent while they are made."""
    shape = len(order), *order.shape

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(order.stream(sampler, files=True)) as parts:
            async for samples in parts:
                yield b"".join(samples.files or ())

    return await _download(pieces(), RAW, pixel_headers(shape) | _seeds_header(order) | _attachment(order, "raw"))


async def answer_json(order: Order, sampler: Sampler) -> Response:
    """The files as base64."""
    samples = await order.make(sampler, files=not order.grid, base64=True)

    def write() -> bytes:
        document = {
            "model": order.resolved.label,
            "truncation": order.truncation,
            "media_type": order.format.media_type,
            "shape": order.shape,
            "samples": list(_entries(order, samples, 0)),
            "grid": _base64(order.picture(samples)) if order.grid else None,
        }
        return _json(document)

    return Whole(await run_in_threadpool(write), media_type=JSON)


async def answer_lines(order: Order, sampler: Sampler) -> Response:
    """A line of JSON for each sample, sent as it is made."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        done = 0
        async with aclosing(order.stream(sampler, files=True)) as parts:
            async for samples in parts:
                yield b"".join(_json(entry) + b"\n" for entry in _entries(order, samples, done))
                done += len(samples)

    return await _download(pieces(), LINES, _shape_header(order))


async def answer_mixed(order: Order, sampler: Sampler) -> Response:
    """A part for each sample (RFC 2046, section 5.1), sent as it is made: its file, with seed and class in the headers."""
    boundary = secrets.token_hex(16)  # in no file but by a chance of 2^-128

    async def pieces() -> AsyncGenerator[bytes, None]:
        done = 0
        async with aclosing(order.stream(sampler, files=True)) as parts:
            async for samples in parts:
                written = []
                for at, (name, data) in enumerate(zip(order.class_names(samples), samples.files or (), strict=True)):
                    head = {"Content-Type": order.format.media_type, "Content-Length": str(len(data))}
                    head |= sample_headers(order.seed(done + at), name) | _shape_header(order)
                    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
                    written += [f"--{boundary}\r\n{lines}\r\n".encode(), data, b"\r\n"]
                yield b"".join(written)
                done += len(samples)
        yield f"--{boundary}--\r\n".encode()

    return await _download(pieces(), f"{MIXED}; boundary={boundary}", {})


async def answer_zip(order: Order, sampler: Sampler) -> Response:
    """A file for each sample, and manifest.json; sent while it is made."""

    async def write(bundle: Bundle, parts: AsyncGenerator[Samples, None]) -> AsyncGenerator[bytes, None]:
        entries: list[dict[str, Any]] = []
        async for samples in parts:
            for name, data in zip(order.class_names(samples), samples.files or (), strict=True):
                seed = order.seed(len(entries))
                stem = f"{len(entries):05d}" if seed is None else f"{len(entries):05d}-{seed}"
                file = f"{stem}.{order.format.extension}"
                entries.append({"file": file, "seed": seed, "class": name})
                bundle.add(file, data)
            yield bundle.drain()
        manifest = {
            "model": order.resolved.label,
            "sha256": order.resolved.sha256,
            "truncation": order.truncation,
            "media_type": order.format.media_type,
            "shape": order.shape,
            "samples": entries,
        }
        bundle.add("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        if order.return_z:
            z = order.latents
            with bundle.array("z", z.shape, np.float32) as append:
                append(z)

    return await _bundle(order, order.stream(sampler, files=True), write, ZIP, "zip")


async def answer_npz(order: Order, sampler: Sampler) -> Response:
    """The pixels themselves; sent while they are made."""

    async def write(bundle: Bundle, parts: AsyncGenerator[Samples, None]) -> AsyncGenerator[bytes, None]:
        n = len(order)
        labels: list[int] = []
        with bundle.array("images", (n, *order.shape), np.uint8) as append:
            async for samples in parts:
                append(samples.images)
                labels += [-1] * len(samples) if samples.labels is None else samples.labels
                yield bundle.drain()
        seeds = [-1] * n if order.seeds is None else order.seeds
        arrays: dict[str, NDArray[Any]] = {"seeds": np.array(seeds, np.int64), "classes": np.array(labels, np.int64)}
        if order.return_z:
            arrays["z"] = order.latents
        for name, array in arrays.items():
            with bundle.array(name, array.shape, array.dtype) as append:
                append(array)

    return await _bundle(order, order.stream(sampler, files=False), write, NPZ, "npz")


ANSWERS: dict[str, Callable[[Order, Sampler], Coroutine[Any, Any, Response]]] = {
    JSON: answer_json,
    LINES: answer_lines,
    MIXED: answer_mixed,
    ZIP: answer_zip,
    NPZ: answer_npz,
    RAW: answer_raw,
}

Write = Callable[[Bundle, AsyncGenerator[Samples, None]], AsyncGenerator[bytes, None]]


async def _bundle(
    order: Order, stream: AsyncGenerator[Samples, None], write: Write, media_type: str, extension: str
) -> Response:
    async def pieces() -> AsyncGenerator[bytes, None]:
        bundle = Bundle()
        async with aclosing(stream) as parts, aclosing(write(bundle, parts)) as written:
            async for piece in written:
                yield piece
        yield bundle.close()

    return await _download(pieces(), media_type, _attachment(order, extension))


async def _download(pieces: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> Response:
    """A download whose first bytes exist already: what can go wrong has gone wrong before the status is sent."""
    return DownloadAsMade(await anext(pieces), pieces, media_type=media_type, headers=headers)


def _seeds_header(order: Order) -> dict[str, str]:
    """Which seeds they are, where that fits into a header: those that were drawn are in a row."""
    told = "" if order.seeds is None else text(runs(order.seeds))
    return {"X-Seeds": told} if 0 < len(told) <= MOST_SEEDS_TOLD else {}


def _shape_header(order: Order) -> dict[str, str]:
    """What the files of bare pixels do not tell."""
    return pixel_headers(order.shape) if order.format.name == "raw" else {}


def _attachment(order: Order, extension: str) -> dict[str, str]:
    name = f"{order.resolved.label.replace(':', '-')}.{extension}"
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _entries(order: Order, samples: Samples, done: int) -> Iterator[dict[str, Any]]:
    """What JSON says of each sample, the first of these being the `done`th of the order."""
    files: Sequence[bytes | None] = samples.files or [None] * len(samples)
    z = order.latents if order.return_z else None
    for at, (name, data) in enumerate(zip(order.class_names(samples), files, strict=True)):
        entry = {"seed": order.seed(done + at), "class": name, "data": _base64(data)}
        yield entry if z is None else entry | {"z": _base64(z[done + at].astype("<f4").tobytes())}


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
