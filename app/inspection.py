"""A picture file of untrusted origin: what it says of itself, and whether that is what is made now.

Only its header and its metadata are read at first, within limits. Its pixels are decoded once a picture of the very same size was
made to compare them with, so that no file costs more than an honest one.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from app.errors import Gone, Invalid, TooLarge
from app.formats import (
    MAX_PIXELS,
    Format,
    captions,
    check_grid,
    check_scale,
    format_with,
    grid,
    grid_size,
    upscale,
)
from app.formats.metadata import DESCRIPTION_TAG, KEYWORD
from app.provenance import MARK, Statement, parse
from app.registry import Resolved
from app.sampling.labels import of_seeds
from app.sampling.seeds import parse as parse_seeds
from models.pictures import CountedReads

MAX_FILE_BYTES = 2**26 + 2**22  # as much as the largest picture needs
FEW_BYTES, BYTES_A_PIXEL = 2**17, 4  # of one file: metadata, and what cannot be compressed
FEW_READS, BYTES_A_READ = 2000, 512  # Pillow takes each part of a file in Python; ours have few
TOO_MANY = "It shows {count} samples, and {limit} at most are made again to compare a picture with."
MOST_SCANS = 12  # of a JPEG; ours have one
PLAIN_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}  # 8 bits and no other idea of colour
PILLOW_FORMATS = ["PNG", "JPEG", "WEBP", *(["AVIF"] if features.check("avif") else [])]
KNOWN = " and ".join((", ".join(PILLOW_FORMATS[:-1]), PILLOW_FORMATS[-1])).replace("WEBP", "WebP")
GIF = b"GIF8"  # what each of them begins with
# What Pillow raises on damaged files. OSError too: nothing but memory is read here.
DECODER_ERRORS = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        RuntimeError,
    ),
    *(MemoryError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class PictureFile:
    """A file that was looked at and not yet decoded. `statement` is None for one that says nothing of where it comes from."""

    data: bytes
    format: str  # a key of FORMATS
    mode: str  # Pillow's
    width: int
    height: int
    animated: bool
    statement: Statement | None


@dataclass(frozen=True)
class Difference:
    """Of two pictures of one size: how many pixels differ, and by how much at most in a channel (0 to 255)."""

    pixels: int
    largest: int


@dataclass(frozen=True)
class Plan:
    """What to make to compare a file with."""

    statement: Statement
    seeds: list[int]
    labels: list[int] | None
    class_names: list[str | None]
    format: Format
    height: int
    width: int

    def differs_at_sight(self, file: PictureFile) -> str | None:
        """Why a file cannot be the picture that is planned, whatever its pixels are."""
        if (file.height, file.width) != (self.height, self.width):
            return f"It has {file.width} x {file.height} pixels, where what it names has {self.width} x {self.height}."
        if file.mode not in PLAIN_MODES:
            return f"Its pixels are of another kind ({file.mode}) than any that are made here."
        return None

    def make(self, images: NDArray[np.uint8]) -> bytes:
        """The file, of the samples uint8 [n, H, W, C] of these seeds."""
        return self.format.encode(self._picture(images))

    def _picture(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        said = self.statement
        if said.columns is None:
            return upscale(images[0], said.scale)
        texts = captions(self.seeds, self.class_names) if said.labels else None
        return grid(images, said.columns, texts, scale=said.scale)


def _reads(data: bytes) -> CountedReads:
    tiny = Invalid("This file is made of too many tiny parts: it was not written here.")
    return CountedReads(data, FEW_READS + len(data) // BYTES_A_READ, tiny)


def look(data: bytes) -> PictureFile:
    """Read a file's header and metadata. Raises TooLarge, and Invalid for what is no picture, damaged or too large a one."""
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"A picture has at most {MAX_FILE_BYTES} bytes here; this one has {len(data)}.")
    if data.startswith(GIF):
        raise Invalid(f"A GIF says nothing of where it comes from; {KNOWN} do.")
    try:
        with Image.open(_reads(data), formats=PILLOW_FORMATS) as image:
            _check_size(image, data)
            return PictureFile(
                data=data,
                format=str(image.format).lower(),
                mode=image.mode,
                width=image.width,
                height=image.height,
                animated=bool(getattr(image, "is_animated", False)),
                statement=_statement(image),
            )
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Invalid(f"This picture has too many pixels: {MAX_PIXELS} are the most.") from error
    except UnidentifiedImageError as error:
        raise Invalid(f"This is no picture that can be read: {KNOWN} say where they come from.") from error
    except DECODER_ERRORS as error:
        raise _damaged(error) from error


def _check_size(image: Image.Image, data: bytes) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Invalid(f"This picture has {image.width} x {image.height} pixels: {MAX_PIXELS} are the most.")
    if len(data) > FEW_BYTES + (BYTES_A_PIXEL + 1 / 8) * image.width * image.height:
        raise Invalid(
            f"{len(data)} bytes are too many for {image.width} x {image.height} pixels: it was not written here."
        )
    if image.format == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
        raise Invalid("This JPEG has too many scans: it was not written here.")


def _statement(image: Image.Image) -> Statement | None:
    """PNG has a place of our own; in EXIF's description stand other people's texts too, which are no statement."""
    if image.format == "PNG":
        text = image.info.get(KEYWORD)
        return parse(text) if isinstance(text, str) else None
    text = image.getexif().get(DESCRIPTION_TAG)
    return parse(text) if isinstance(text, str) and text.startswith(MARK) else None


def _damaged(error: Exception) -> Invalid:
    text = "".join(character for character in str(error) if character.isprintable())[:200]
    return Invalid(f"This picture is damaged: it cannot be decoded ({text or type(error).__name__}).")


def check_made_by(statement: Statement, resolved: Resolved) -> None:
    """Raise Gone when what the statement names is not what made the picture, any more or ever."""
    if resolved.label != statement.model:
        raise Gone(f"{statement.model!r} is no lasting name of a version: what it means now is {resolved.label}.")
    if resolved.sha256 != statement.sha256:
        raise Gone(f"{statement.model} has other weights than those that the picture names.")
    dataset = resolved.info.get("dataset", {}).get("sha256")
    if dataset != statement.dataset:
        raise Gone(f"{statement.model} learned from another data set than the one that the picture names.")


def plan(file: PictureFile, statement: Statement, resolved: Resolved, limit: int) -> Plan:
    """What to make again. Raises Invalid when it cannot be made, or would not have the file's size; `limit` is the most samples."""
    if file.animated:
        raise Invalid("It is an animation, and only single pictures are compared.")
    if statement.z is not None:
        raise Invalid("It was made from a z of the caller's own, of which it holds only the digest.")
    height, width = resolved.info["height"], resolved.info["width"]
    format = format_with(file.format, quality=statement.quality)  # noqa: A001
    if statement.seed is not None:
        seeds = [statement.seed]
    else:
        seeds = parse_seeds(statement.seeds or "", limit=limit, too_many=TOO_MANY)
    labels = _labels(statement, resolved.info["classes"], seeds)
    names = [None] * len(seeds) if labels is None else [resolved.info["classes"][label] for label in labels]
    if statement.columns is None:
        check_scale(statement.scale, height=height, width=width, format=format)
        size = height * statement.scale, width * statement.scale
    else:
        texts = captions(seeds, names) if statement.labels else None
        shape = {"height": height, "width": width, "captions": texts}
        check_grid(len(seeds), statement.columns, statement.scale, format=format, **shape)
        size = grid_size(len(seeds), statement.columns, statement.scale, **shape)
    return Plan(statement, seeds, labels, names, format, *size)


def _labels(statement: Statement, classes: list[str], seeds: list[int]) -> list[int] | None:
    each = statement.classes
    if each is None:
        return of_seeds(classes, seeds, statement.class_)
    if len(each) != len(seeds) or max(each) >= len(classes):
        raise Invalid(f"Its {len(each)} classes are not those of {len(seeds)} samples of this model.")
    return each


def compare(file: PictureFile, data: bytes) -> Difference:
    """The file against one of the same size that was made now. Raises Invalid when its pixels cannot be decoded."""
    ours = _pixels(data)
    try:
        theirs = _pixels(file.data)
    except DECODER_ERRORS as error:
        raise _damaged(error) from error
    apart = np.maximum(ours, theirs) - np.minimum(ours, theirs)
    return Difference(int(apart.any(axis=2).sum()), int(apart.max()))


def _pixels(data: bytes) -> NDArray[np.uint8]:
    """RGBA uint8 [H, W, 4]."""
    with Image.open(_reads(data), formats=PILLOW_FORMATS) as image:
        return np.asarray(image.convert("RGBA"))
