"""Picture files of untrusted origin: what they say, and what they may cost."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.errors import Invalid, TooLarge
from app.formats import FORMATS, MAX_PIXELS
from app.formats.png import END, SIGNATURE, chunk
from app.inspection import MAX_FILE_BYTES, compare, look
from app.provenance import Provenance
from app.registry import Resolved
from tests.pictures import CHANNELS, picture

RESOLVED = Resolved(
    "a:1", "a:1", "a" * 64, "k", {"dataset": {"sha256": "d" * 64}}, pinned=True, examples_seen=1, kid=None
)
IMAGES = [name for name in FORMATS if name != "raw"]


def text_of(name: str) -> str:
    return Provenance(RESOLVED, FORMATS[name], "e" * 64).of(7, "Käfer", 0.5)


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"".join((SIGNATURE, head, *chunks, chunk(b"IDAT", zlib.compress(pixels)), END))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", IMAGES)
def test_what_was_written_is_read(name: str, channels: int) -> None:
    """By the content alone, in every format that has a place for it."""
    file = look(FORMATS[name].encode(picture(channels), text_of(name)))
    assert (file.format, file.width, file.height, file.animated) == (name, 13, 9, False)
    assert file.statement is not None
    assert (file.statement.model, file.statement.seed, file.statement.class_) == ("a:1", 7, "Käfer")


@pytest.mark.parametrize("name", IMAGES)
def test_silent_pictures_say_nothing(name: str) -> None:
    """Neither do those that say something else in the same place."""
    assert look(FORMATS[name].encode(picture(3))).statement is None
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "A day at the sea"
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "A day at the sea")
    Image.fromarray(picture(3)).save(buffer, name, exif=exif, pnginfo=info)
    assert look(buffer.getvalue()).statement is None


def test_text_that_another_program_rewrote_is_read() -> None:
    """Compressed, or as international text: PNG editors do that."""
    for add in (
        lambda info, text: info.add_text("ganvil", text, zip=True),
        lambda info, text: info.add_itxt("ganvil", text, zip=True),
    ):
        info = PngImagePlugin.PngInfo()
        add(info, text_of("png"))
        buffer = io.BytesIO()
        Image.fromarray(picture(3)).save(buffer, "PNG", pnginfo=info)
        said = look(buffer.getvalue()).statement
        assert said is not None
        assert said.seed == 7


def test_what_is_no_picture_is_refused() -> None:
    """Garbage, nothing, another format, and a file of another kind with a picture's first bytes."""
    for data in (b"", b"garbage", bytes(1000), b"<svg/>", SIGNATURE, b"\xff\xd8\xff", b"RIFF0000WEBP"):
        with pytest.raises(Invalid, match=r"This is no picture|damaged"):
            look(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # by which Pillow speaks of damaged EXIF
@pytest.mark.parametrize("name", IMAGES)
def test_damage_is_refused_or_seen(name: str) -> None:
    """Whatever byte is changed and wherever the file ends: a clear refusal, or a picture that is compared."""
    whole = FORMATS[name].encode(picture(3), text_of(name))
    generator = np.random.default_rng(0)
    for index in range(150):
        data = bytearray(whole)
        at = int(generator.integers(len(data)))
        if index % 3:
            data[at] ^= int(generator.integers(1, 256))
        else:
            del data[at:]
        try:
            file = look(bytes(data))
            if (file.width, file.height) == (13, 9):
                compare(file, whole)
        except Invalid as refused:
            assert refused.detail.endswith(".")  # noqa: PT017


def test_bombs_are_refused_before_they_are_decoded() -> None:
    """By the size that the header names, by bytes that no such picture has, and by text that unpacks to more than it may."""
    side = 2**15
    with pytest.raises(Invalid, match="pixels"):
        look(png(side, side, pixels=bytes(10**6)))
    assert side * side > MAX_PIXELS
    with pytest.raises(Invalid, match="pixels"):
        look(png(5000, 5000))
    with pytest.raises(TooLarge):
        look(bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(Invalid, match="too many for 8 x 8"):
        look(png(8, 8, chunk(b"juNk", bytes(2**18)), pixels=bytes(72)))
    deflated = chunk(b"zTXt", b"ganvil\0\0" + zlib.compress(bytes(2**24), 9))
    with pytest.raises(Invalid, match="damaged"):
        look(png(8, 8, deflated, pixels=bytes(72)))


def test_a_gif_is_refused_by_name() -> None:
    """It is a picture, and has no place for what a picture says of itself; the refusal tells which formats have one."""
    gif = io.BytesIO()
    Image.fromarray(picture(3)).save(gif, "GIF")
    with pytest.raises(Invalid, match=r"A GIF says nothing of where it comes from; PNG, JPEG.* WebP"):
        look(gif.getvalue())


def test_endless_small_parts_are_refused() -> None:
    """Thousands of chunks or scans would be read one by one."""
    with pytest.raises(Invalid, match="tiny parts"):
        look(png(8, 8, *[chunk(b"juNk", b"")] * 9000, pixels=bytes(72)))
    jpeg = FORMATS["jpeg"].encode(picture(3))
    scan = jpeg.index(b"\xff\xda")
    with pytest.raises(Invalid, match="scans"):
        look(jpeg[:scan] + jpeg[scan:-2] * 50)


def test_huge_text_is_refused() -> None:
    """As text of ours, which is short; another's is passed over."""
    with pytest.raises(Invalid, match="longer than"):
        look(png(8, 8, chunk(b"tEXt", b"ganvil\0" + b"x" * 100_000), pixels=bytes(72)))
    assert look(png(8, 8, chunk(b"tEXt", b"Comment\0" + b"x" * 100_000), pixels=bytes(72))).statement is None


def test_changed_text_is_refused() -> None:
    """A seed that is none, in PNG as in EXIF; a text cut short."""
    for name in IMAGES:
        for before, after in (('"seed":7', '"seed":-'), ('"truncation":0.5', '"truncation":5.5'), ('"seed"', '"sead"')):
            text = text_of(name).replace(before, after)
            with pytest.raises(Invalid, match="it was changed"):
                look(FORMATS[name].encode(picture(3), text))


def test_differences_are_counted() -> None:
    """Pixels, not channels; the largest difference in a channel."""
    original = picture(3)
    changed = original.copy()
    changed[2, 3] ^= 1
    changed[4, 5, 1] = 255 if original[4, 5, 1] < 128 else 0
    largest = max(int(original[4, 5, 1]), 255 - int(original[4, 5, 1]))
    ours = FORMATS["png"].encode(original)
    found = compare(look(FORMATS["webp"].encode(changed)), ours)
    assert (found.pixels, found.largest) == (2, largest)
    assert compare(look(ours), ours).pixels == 0


def test_a_film_is_told_from_a_picture() -> None:
    """Its first frame could be any."""
    buffer = io.BytesIO()
    first = Image.fromarray(picture(3))
    first.save(buffer, "WEBP", save_all=True, append_images=[Image.fromarray(picture(3, seed=1))], lossless=True)
    assert look(buffer.getvalue()).animated
    assert json.loads(text_of("png"))["seed"] == 7
