"""The formats, and those that a caller's options make of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import isal
import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import features

from app.errors import FieldError, Invalid
from app.formats import jpeg, png, through_pillow

Picture = NDArray[np.uint8]  # [height, width, channels]
Pictures = NDArray[np.uint8]  # [n, height, width, channels]
Write = Callable[[Pictures, Sequence[str | None]], list[bytes]]

UNLIMITED = 2**31 - 1
QUALITIES = range(1, 101)


@dataclass(frozen=True)
class Format:
    """How samples become bytes."""

    name: str
    media_type: str
    extension: str
    encoder: str  # library, version and settings: whatever decides the bytes
    longest_side: int  # pixels
    write: Write
    quality: int | None = None  # 1 to 100 of one that loses; None: the decoded pixels are the sample's

    @property
    def lossless(self) -> bool:
        """Whether decoding gives back exactly the pixels of the sample."""
        return self.quality is None

    def encode(self, picture: Picture, provenance: str | None = None) -> bytes:
        """One picture uint8 [H, W, C], with what it says of itself (ASCII) where the format has a place for it."""
        return self.write(picture[np.newaxis], [provenance])[0]

    def encode_many(self, pictures: Pictures, provenances: Sequence[str | None] | None = None) -> list[bytes]:
        """Each of uint8 [n, H, W, C]: the same bytes as one by one, for less time."""
        return self.write(pictures, provenances or [None] * len(pictures))


def _raw(pictures: Pictures, _: Sequence[str | None]) -> list[bytes]:
    """The bytes of each array as they lie, row by row; there is no place for anything else."""
    return [picture.tobytes() for picture in pictures]


def _png() -> Format:
    encoder = f"isal {isal.__version__} level {png.LEVEL} filter up or average"
    return Format("png", "image/png", "png", encoder, UNLIMITED, png.write)


def _jpeg(quality: int) -> Format:
    encoder = f"simplejpeg {simplejpeg.__version__} quality {quality} 4:4:4 over white"
    return Format("jpeg", "image/jpeg", "jpg", encoder, 65_500, partial(jpeg.write, quality=quality), quality)


def _webp(quality: int | None) -> Format:
    library = f"pillow {PIL.__version__} libwebp {features.version('webp')}"
    how = "lossless method 0 exact" if quality is None else f"quality {quality} method 0"
    write = partial(through_pillow.write_webp, quality=quality)
    return Format("webp", "image/webp", "webp", f"{library} {how}", 16_383, write, quality)


def _avif(quality: int) -> Format:
    library = f"pillow {PIL.__version__} libavif {features.version('avif')}"
    write = partial(through_pillow.write_avif, quality=quality)
    encoder = f"{library} quality {quality} speed {through_pillow.AVIF_SPEED} 4:4:4"
    return Format("avif", "image/avif", "avif", encoder, 16_384, write, quality)


def _table() -> dict[str, Format]:
    entries = [_png(), _jpeg(90), _webp(None)]
    if features.check("avif"):
        entries.append(_avif(75))
    raw = Format("raw", "application/octet-stream", "raw", "uint8 row by row", UNLIMITED, _raw)
    return {entry.name: entry for entry in [*entries, raw]}


FORMATS: dict[str, Format] = _table()
# As a person may write them: by name or by extension, which of JPEG are two.
BY_SPELLING = {spelling: entry for entry in FORMATS.values() for spelling in (entry.name, entry.extension)}
BY_MEDIA_TYPE = {entry.media_type: entry for entry in FORMATS.values()}
WITH_QUALITY: dict[str, Callable[[int], Format]] = {"jpeg": _jpeg, "webp": _webp, "avif": _avif}
WEBP_QUALITY = 80  # where it is to lose, and nobody says how much


def encode(picture: Picture, name: str) -> bytes:
    """The bytes of a picture in the format of that name, a key of FORMATS."""
    return FORMATS[name].encode(picture)


@lru_cache(1024)
def format_with(name: str, *, quality: int | None = None, lossless: bool | None = None) -> Format:
    """The format of that name, a key of FORMATS, with a caller's options. WebP loses where a quality is given, or `lossless` is False.

    Raises Invalid for options that the format does not have, or that contradict each other.
    """
    plain = FORMATS[name]
    if quality is not None:
        _check_quality(name, quality, lossless)
        return WITH_QUALITY[name](quality)
    if lossless is None or lossless == plain.lossless:
        return plain
    if name == "webp":
        return _webp(WEBP_QUALITY)
    does = "keeps every pixel: there is no other" if plain.lossless else "always loses something: there is no lossless"
    raise _invalid("lossless", f"{name} {does} {name}")


def _check_quality(name: str, quality: int, lossless: bool | None) -> None:
    if name not in WITH_QUALITY:
        raise _invalid("quality", f"{name} keeps every pixel and has no quality: leave it out, or ask for {_known()}")
    if quality not in QUALITIES:
        raise _invalid("quality", f"A quality goes from {QUALITIES[0]} to {QUALITIES[-1]}; {quality} does not")
    if lossless:
        raise _invalid("lossless", f"A {name} of quality {quality} is not lossless: leave one of the two out")


def _known() -> str:
    return " or ".join(each for each in WITH_QUALITY if each in FORMATS)


def _invalid(field: str, detail: str) -> Invalid:
    return Invalid(f"{detail}.", errors=[FieldError(f"#/{field}", detail)])
