"""What a request for samples comes to once it is checked."""

import base64
import binascii
import io
import math
import re
import zipfile
import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.errors import FieldError, Invalid
from app.formats import Format, captions, check_grid, check_scale, grid
from app.provenance import Provenance
from app.registry import Resolved
from app.sampling import Encoding, Latents, Sampler, Samples, Seeds, Sent, picture_bytes, sample_shape
from app.sampling.inputs import Inputs
from app.sampling.labels import index_of
from app.sampling.ranges import runs, text
from app.sampling.seeds import check_all, check_count, consecutive, draw, parse
from app.schemas.generations import GenerationRequest
from models.randomness import sample_latents

MAX_BYTES = 2**28  # of pixels in one answer, in whatever form: they may all lie in memory at once
MAX_TEXT_BYTES = 2**26  # of those that are in one text of JSON, which nothing else of this process can be done beside
MAX_NPY_HEADER = 4096  # bytes
NPY_HEADER = re.compile(
    r"\{\s*'descr':\s*'(?P<dtype>[^']*)',\s*'fortran_order':\s*(?P<fortran_order>True|False),"
    r"\s*'shape':\s*\((?P<shape>[0-9, ]*)\),?\s*\}\s*"
)
UNREADABLE = (
    *(binascii.Error, zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, EOFError),
    OverflowError,  # of a place in the file that no file has
)
TOO_MANY_ROWS = "z has {count} rows, and one request may ask for {limit} samples at most: ask several times."
MAX_Z = 100.0  # of a value of z: a standard normal one is never near it, and a network may overflow beyond


@dataclass(frozen=True)
class Order:
    """A request that was checked. Its rows come from `seeds` or else from the caller's own `z`."""

    resolved: Resolved
    seeds: Sequence[int] | None
    z: NDArray[np.float32] | None
    labels: list[int] | None
    truncation: float
    format: Format
    scale: int
    columns: int | None  # of the grid, where one is asked for
    captions: bool
    return_z: bool
    deadline_seconds: float | None
    provenance: Provenance
    sent: Sent  # ends when the answer was sent

    def __len__(self) -> int:
        return len(self.latents if self.seeds is None else self.seeds)

    @property
    def grid(self) -> bool:
        """Whether one picture of all is asked for."""
        return self.columns is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the pixels of each file: height, width, channels."""
        return sample_shape(self.resolved.info, self.scale)

    @property
    def inputs(self) -> Inputs:
        if self.seeds is None:
            return Latents(self.latents, None if self.labels is None else np.array(self.labels))
        return Seeds.of(self.seeds, self.labels, self.truncation)

    @cached_property
    def latents(self) -> NDArray[np.float32]:
        """float32 [n, z_dim]: what the network is given, after truncation."""
        z_dim = self.resolved.info["z_dim"]
        drawn = self.z if self.seeds is None else sample_latents(self.seeds, z_dim)
        assert drawn is not None, "either seeds or z"
        return drawn * np.float32(self.truncation)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.format, self.describe, self.scale)

    def describe(self, row: int, label: int | None) -> str:
        """What the file of a row says of itself."""
        name = self.class_name(label)
        if self.seeds is None:
            assert self.z is not None
            return self.provenance.of_z(self.z[row], name, self.truncation, scale=self.scale)
        return self.provenance.of(self.seeds[row], name, self.truncation, scale=self.scale)

    def class_name(self, label: int | None) -> str | None:
        return None if label is None else self.resolved.info["classes"][label]

    def class_names(self, samples: Samples) -> list[str | None]:
        if samples.labels is None:
            return [None] * len(samples)
        return [self.class_name(label) for label in samples.labels]

    def seed(self, row: int) -> int | None:
        return None if self.seeds is None else self.seeds[row]

    def stream(self, sampler: Sampler, *, files: bool) -> AsyncGenerator[Samples, None]:
        """The samples as they are made, with their files if wanted."""
        return sampler.stream(self.resolved, self.inputs, self.encoding if files else None, self.deadline_seconds)

    async def make(self, sampler: Sampler, *, files: bool, base64: bool = False) -> Samples:
        """All samples at once, for an answer that has them as they are or in base64."""
        encoding = self.encoding if files else None
        each_bytes = picture_bytes(self.resolved, self.scale)
        if base64:  # beside what was made lies the text of it
            z_bytes = self.resolved.info["z_dim"] * 4 if self.return_z else 0
            each_bytes += (each_bytes + z_bytes) * 4 // 3
        return await sampler.gather(
            self.resolved, self.inputs, encoding, self.deadline_seconds, each_bytes=each_bytes, sent=self.sent
        )

    def picture(self, samples: Samples) -> bytes:
        """All in one picture."""
        assert self.columns is not None
        pixels = grid(samples.images, self.columns, self.texts() if self.captions else None, scale=self.scale)
        return self.format.encode(pixels, self.describe_picture())

    def texts(self) -> list[str]:
        """What stands under each sample: its class, and its seed or else its place."""
        names = [None] * len(self) if self.labels is None else [self.class_name(label) for label in self.labels]
        return captions(self.seeds if self.seeds is not None else range(len(self)), names)

    def describe_picture(self) -> str | None:
        """What the one picture says of itself; nothing where the caller's own z made it."""
        if self.seeds is None or self.columns is None:
            return None
        return self.provenance.of_grid(
            text(runs(self.seeds)), self.columns, self.labels, self.truncation, scale=self.scale, labels=self.captions
        )


def columns_of(n: int) -> int:
    """Of a grid as square as can be."""
    return math.isqrt(n - 1) + 1


def seeds_of(body: GenerationRequest, limit: int) -> list[int] | None:
    """The seeds that a request means, at most `limit`; None where it brings its own z. Raises Invalid."""
    if body.z is not None:
        _only(body, "z", ("n", "seed", "seeds"))
        return None
    if body.seeds is None:
        n = body.n or 1
        return draw(n, limit=limit) if body.seed is None else consecutive(body.seed, n, limit=limit)
    _only(body, "seeds", ("n", "seed"))
    return parse(body.seeds, limit=limit) if isinstance(body.seeds, str) else check_all(body.seeds, limit=limit)


def _only(body: GenerationRequest, given: str, others: Sequence[str]) -> None:
    for name in others:
        if getattr(body, name) is not None:
            raise invalid(f"#/{name}", f"{given} says which samples, and {name} contradicts it: give one of them.")


def latents_of(body: GenerationRequest, z_dim: int, limit: int) -> NDArray[np.float32] | None:
    """The caller's own z, float32 [n, z_dim] of finite values; None where there is none. Raises Invalid."""
    if body.z is None:
        return None
    z = _read_lists(body.z) if isinstance(body.z, list) else _read_npz(body.z, limit * z_dim * 4)
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise invalid("#/z", f"z has the shape {list(z.shape)}, and this model takes [n, {z_dim}].")
    if not np.isfinite(z).all() or np.abs(z).max(initial=0) > MAX_Z:
        raise invalid("#/z", f"The values of z are numbers from {-MAX_Z:g} to {MAX_Z:g}, not NaN or infinite.")
    check_count(len(z), limit=limit, pointer="#/z", too_many=TOO_MANY_ROWS)
    return z.astype(np.float32, copy=False)


def _read_lists(rows: list[list[float]]) -> NDArray[np.float64]:
    if len({len(row) for row in rows}) > 1:
        raise invalid("#/z", "The rows of z are not all equally long.")
    return np.array(rows, np.float64)


def _read_npz(text: str, most_bytes: int) -> NDArray[np.float32]:
    """The array `z` of an npz in base64. Nothing in it is executed, and no more is unpacked than one answer may ask for."""
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(text, validate=True))) as archive:
            member = archive.getinfo("z.npy")
            if member.file_size > most_bytes + MAX_NPY_HEADER:
                most = f"{most_bytes} and a header of {MAX_NPY_HEADER}"
                raise invalid("#/z", f"z.npy has {member.file_size} bytes; it may have {most}.")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise invalid("#/z", "z.npy is compressed in a way that numpy does not write: use numpy.savez.")
            with archive.open(member) as file:
                data = file.read(member.file_size)  # `archive.read` would unpack all that there is, whatever it says
            return _read_npy(io.BytesIO(data))
    except UNREADABLE as error:
        raise invalid("#/z", f"z is not the base64 of an npz with an array called z: {error}.") from error


def _read_npy(file: io.BytesIO) -> NDArray[np.float32]:
    """By its header and its bytes: numpy's own reader evaluates what a header says and allocates what it claims. Raises ValueError."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise ValueError("z.npy does not begin as an .npy does")
    size = int.from_bytes(file.read(2 if magic[6:] == b"\1\0" else 4), "little")
    header = NPY_HEADER.fullmatch(file.read(min(size, MAX_NPY_HEADER)).decode("latin-1"))
    if header is None:
        raise ValueError("the header of z.npy is not one that numpy.save writes for numbers")
    dtype, order, shape = header["dtype"], header["fortran_order"], header["shape"]
    if dtype != "<f4":
        raise ValueError(
            f"it is of {dtype[:20]}, and float32 is what the network takes: z.astype('float32') makes it so"
        )
    sides = [int(side) for side in shape.split(",") if side.strip()]
    z = np.frombuffer(file.read(), np.float32).reshape(sides, order="F" if order == "True" else "C")
    return np.ascontiguousarray(z, np.float32)


def labels_of(body: GenerationRequest, resolved: Resolved, n: int) -> list[int] | None:
    """A class index for each of n samples; None leaves them to the seeds. Raises Invalid."""
    known = resolved.info["classes"]
    if body.classes is None:
        if body.class_ is None and body.z is not None and known:
            raise invalid("#/class", "A seed stands for a class and z does not: say class, or classes, beside z.")
        return None if body.class_ is None else [index_of(known, body.class_)] * n
    if body.class_ is not None:
        raise invalid("#/classes", "Give either class or classes.")
    if len(body.classes) != n:
        raise invalid("#/classes", f"There are {len(body.classes)} classes for {n} samples: give one for each.")
    return [index_of(known, wanted, pointer=f"#/classes/{index}") for index, wanted in enumerate(body.classes)]


def check_size(body: GenerationRequest, order: Order, *, base64: bool = False) -> None:
    """Raise Invalid when the answer would be larger than any may be, saying how many samples of this model it may have."""
    n, size = len(order), size_of(order.resolved)
    most_bytes = MAX_TEXT_BYTES if base64 and not order.grid else MAX_BYTES
    most = max(1, most_bytes // picture_bytes(order.resolved, order.scale))
    if n > most:
        height, width, channels = order.shape
        shape = f"{width} x {height} x {channels}"
        pointer = "#/n" if body.seeds is None and body.z is None else "#/seeds" if body.z is None else "#/z"
        way_out = "ask for at most" if most_bytes == MAX_BYTES else "accept lines, a zip or an npz, or ask for at most"
        raise invalid(pointer, f"{n} samples of {shape} are too many for one answer: {way_out} {most} of this model.")
    if order.columns is not None:
        texts = order.texts() if order.captions else None
        check_grid(n, order.columns, order.scale, format=order.format, captions=texts, **size)
    check_scale(order.scale, format=order.format, **size)


def size_of(resolved: Resolved) -> dict[str, int]:
    """Of a model's samples, in pixels."""
    return {"height": resolved.info["height"], "width": resolved.info["width"]}


def invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, detail)])
