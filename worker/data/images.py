"""One image: from the bytes of a file to a uint8 array of a stated shape.

Formats: PNG, JPEG, GIF, WEBP, BMP, TIFF and PPM, recognised by content; no other decoder of Pillow is ever tried. A size over
the limit is refused by the header, before a pixel is decoded, and so are a large image in a few bytes and a JPEG of too many
scans. Rules of conversion:

    1 bit                   0 and 255
    16 bit gray             scaled, round(value / 257); its one transparent value, if it has one, is ignored
    16 bit colour           the upper byte, as Pillow reads it
    32 bit, float           refused: there is no agreed range
    palette                 its colours, with alpha if an entry is transparent
    CMYK, YCbCr, HSV        RGB by Pillow's formulas, without colour profiles
    animation, several pages    the first
    EXIF orientation        applied
    alpha                   kept in a data set of four channels, else laid over white

Resizing takes Lanczos to shrink and bicubic to enlarge, with premultiplied alpha. `crop` keeps the largest centred part that has
the target's shape, `pad` fits the whole image in and leaves black (transparent, if there is alpha) around it, `stretch` ignores
the shape.
"""

import io
import struct
import zlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from models.pictures import CountedReads
from worker.data.members import CorruptMember

Channels = Literal[1, 3, 4]
Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")
MOST_SCANS = 100  # a progressive JPEG has about ten, and each takes as long as the whole of a plain one
# Pixels for each byte of a file; smaller ones may have more. A page of 20 to 100 million pixels and nothing on it comes to 3,100
# as PNG, 1,300 as GIF, 560 as WebP, 260 as JPEG. Only lossless WebP and fax TIFF go beyond this, at 26,000, and not with a word on it.
DENSEST, DENSE_FROM_PIXELS = 10_000, 4_000_000
# Honest files are read in pieces of a hundred bytes or more, but for their headers; those of HARMLESS_BYTES have no room for many.
HARMLESS_BYTES, FEW_READS, BYTES_A_READ = 2**16, 10_000, 64
MOST_SCANNED = 16  # times the pixels that one image may have, over all scans
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
ORIENTATION_CARRIERS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
QUARTER_TURNS = {5, 6, 7, 8}
GRAY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
WORDS = {"1": "bilevel", "P": "palette", "PA": "palette", "CMYK": "cmyk", "YCbCr": "ycbcr", "HSV": "hsv"}
# What Pillow's decoders raise on damaged files, by their sources and by fuzzing. OSError too: nothing but memory is read here.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Frame(NamedTuple):
    """The shape of raw uint8 pixels that come without a file format; `planar` are stored channels first."""

    height: int
    width: int
    channels: int
    planar: bool


class Header(NamedTuple):
    """What an image's header says; the size is the one after rotation."""

    width: int
    height: int
    has_alpha: bool
    has_colour: bool


class Target(NamedTuple):
    """The shape that every example gets, and how."""

    height: int
    width: int
    channels: Channels
    fit: Fit


class Decoded(NamedTuple):
    """uint8 [height, width, channels]; the size before resizing; what was converted."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    conversions: list[str]


def _reads(data: bytes) -> CountedReads:
    tiny = CorruptMember("it is made of too many tiny parts. Save it again")
    return CountedReads(data, FEW_READS + len(data) // BYTES_A_READ, tiny)


def read_header(data: bytes, max_pixels: int) -> Header:
    """Look at an image without decoding it; raises CorruptMember."""
    try:
        with _open(data, max_pixels) as image:
            width, height = _upright_size(image)
            return Header(width, height, _has_alpha(image), image.mode not in GRAY_MODES)
    except DECODER_ERRORS as error:
        raise CorruptMember(_reason(error)) from error


def decode(data: bytes, target: Target, max_pixels: int) -> Decoded:
    """Decode, convert and resize one image file; raises CorruptMember."""
    try:
        with _open(data, max_pixels) as image:
            return _convert(image, target)
    except DECODER_ERRORS as error:
        raise CorruptMember(_reason(error)) from error


def from_frame(data: bytes, frame: Frame, target: Target) -> Decoded:
    """The same for raw pixels."""
    shape = (frame.channels, frame.height, frame.width) if frame.planar else (frame.height, frame.width, frame.channels)
    array = np.frombuffer(data, np.uint8).reshape(shape)
    array = np.moveaxis(array, 0, 2) if frame.planar else array
    image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if frame.channels == 1 else array))
    return _convert(image, target)


def _reason(error: Exception) -> str:
    text = " ".join("".join(character if character.isprintable() else " " for character in str(error)).split())
    return f"it cannot be decoded ({text[:200]})" if text else "it cannot be decoded"


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(_reads(data) if len(data) > HARMLESS_BYTES else io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise CorruptMember("it is damaged, or not of a supported format") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which stands behind ours
        raise CorruptMember(f"it has too many pixels; {max_pixels} are the limit") from error
    if image.width * image.height > max_pixels:
        raise CorruptMember(f"it has too many pixels, {image.width} x {image.height}; {max_pixels} are the limit")
    if image.width * image.height > max(DENSE_FROM_PIXELS, DENSEST * len(data)):
        raise CorruptMember(
            f"it claims {image.width} x {image.height} pixels in {len(data)} bytes, as only a blank image does; at most"
            f" {DENSEST} pixels a byte are decoded"
        )
    if image.format in {"JPEG", "MPO"}:
        _check_scans(data, image.width * image.height, max_pixels)
    return image


def _check_scans(data: bytes, pixels: int, max_pixels: int) -> None:
    """Counts markers wherever they stand: never too few, whatever a file does to hide them."""
    scans, most = data.count(b"\xff\xda"), min(MOST_SCANS, MOST_SCANNED * max_pixels // max(1, pixels))
    if scans > most:
        raise CorruptMember(f"it is a JPEG of {scans} scans; {most} are the limit at its size. Save it again")


def _convert(image: Image.Image, target: Target) -> Decoded:
    conversions = []
    width, height = _upright_size(image)
    if getattr(image, "is_animated", False):
        conversions.append("first_frame")
    # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the target leaves the filter enough. A square, as it may yet be rotated.
    enough = 2 * max(target.width, target.height)
    if min(image.size) >= 2 * enough:
        image.draft(None, (enough, enough))
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
        conversions.append("rotated")
    image, words = _to_plain(image)
    conversions += words
    if image.size != (target.width, target.height):
        image = _resize(image, target)
        conversions.append("resized")
    image, words = _to_channels(image, target.channels)
    pixels = np.asarray(image).reshape(target.height, target.width, target.channels)
    return Decoded(pixels, width, height, conversions + words)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF" or not image.info.keys() & ORIENTATION_CARRIERS:
        return 1  # Pillow turns a TIFF by itself
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return image.size[::-1] if _orientation(image) in QUARTER_TURNS else image.size


def _has_alpha(image: Image.Image) -> bool:
    return image.has_transparency_data and not image.mode.startswith("I")


def _to_plain(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """One of L, LA, RGB, RGBA, and the word for what was done."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in {"PNG", "PPM"}):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)), ["gray16"]
    if mode in {"I", "F"}:
        raise CorruptMember("it has 32 bits a pixel, which have no agreed range; save it with 8 or 16 bits")
    words = [WORDS[mode]] if mode in WORDS else []
    plain = ("LA" if mode in GRAY_MODES else "RGBA") if _has_alpha(image) else ("L" if mode in GRAY_MODES else "RGB")
    return image if mode == plain else image.convert(plain), words


def _to_channels(image: Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    if channels == 4:
        return image if image.mode == "RGBA" else image.convert("RGBA"), []
    opaque = "L" if channels == 1 else "RGB"
    if image.mode in {"LA", "RGBA"}:
        ground = Image.new(opaque, image.size, "white")
        ground.paste(image.convert(opaque), mask=image.getchannel("A"))
        return ground, ["alpha_over_white"]
    if image.mode == opaque:
        return image, []
    return image.convert(opaque), ["gray_as_rgb"]


def _resize(image: Image.Image, target: Target) -> Image.Image:
    if target.fit == "pad":
        return _pad(image, target)
    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    if target.fit == "crop":
        scale = min(width / target.width, height / target.height)
        left, top = (width - scale * target.width) / 2, (height - scale * target.height) / 2
        box = (left, top, left + scale * target.width, top + scale * target.height)
    return _resample(image, (target.width, target.height), box)


def _pad(image: Image.Image, target: Target) -> Image.Image:
    width, height = image.size
    scale = max(width / target.width, height / target.height)
    inner = (max(1, round(width / scale)), max(1, round(height / scale)))
    canvas = Image.new(image.mode, (target.width, target.height))
    canvas.paste(
        _resample(image, inner, (0.0, 0.0, float(width), float(height))),
        ((target.width - inner[0]) // 2, (target.height - inner[1]) // 2),
    )
    return canvas


def _resample(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    shrinks = box[2] - box[0] > size[0] or box[3] - box[1] > size[1]
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    # The box may end a rounding error beyond the image, which Pillow refuses.
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(image.width), box[2]), min(float(image.height), box[3]))
    return image.resize(size, kernel, box, reducing_gap=3.0)
