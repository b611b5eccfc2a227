"""Encoding: pixels survive, bytes repeat, what a file says of itself is found by others."""

import hashlib
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from app.errors import Invalid
from app.formats import BY_MEDIA_TYPE, BY_SPELLING, FORMATS, SOFTWARE, Format, encode, format_with
from tests.pictures import CHANNELS, MODES, decode, picture

IMAGES = [name for name in FORMATS if name != "raw"]
EVERY = {
    **FORMATS,
    **{f"{name} 55": format_with(name, quality=55) for name in ("jpeg", "webp", "avif") if name in FORMATS},
}
TEXT = json.dumps({"software": SOFTWARE, "class": "Käfer", "seed": 7})


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", IMAGES)
def test_every_format_takes_every_number_of_channels(name: str, channels: int) -> None:
    """Each format writes 1, 3 and 4 channels as a file of its own type and of the right size."""
    data = encode(picture(channels), name)
    image = Image.open(io.BytesIO(data))
    assert (image.size, image.get_format_mimetype()) == ((13, 9), FORMATS[name].media_type)
    image.load()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless_formats_keep_every_pixel(name: str, channels: int) -> None:
    """PNG and WebP give back exactly what went in, also where it is transparent, from one pixel to many rows."""
    assert FORMATS[name].lossless
    for height, width in ((1, 1), (1, 300), (300, 1), (9, 13), (257, 255)):
        original = picture(channels, height=height, width=width)
        assert np.array_equal(decode(encode(original, name), channels), original)


@pytest.mark.parametrize("channels", CHANNELS)
def test_raw_is_the_array(channels: int) -> None:
    """Row by row, whatever lies between the rows in memory."""
    original = picture(channels, width=26)[:, ::2]
    assert encode(original, "raw") == np.ascontiguousarray(original).data.tobytes()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("entry", EVERY.values(), ids=EVERY)
def test_many_are_encoded_as_each_alone(entry: Format, channels: int) -> None:
    """In whatever company and on however many threads: the same bytes, with and without provenance."""
    pictures = np.stack([picture(channels, height=64, width=64, seed=seed) for seed in range(40)])
    texts = [None if index % 3 == 0 else f"{index} {TEXT}" for index in range(40)]
    alone = [entry.encode(each, text) for each, text in zip(pictures, texts, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(entry.encode_many, [pictures] * 4, [texts] * 4))
    assert together == [alone] * 4
    assert entry.encode_many(pictures[:3]) == [entry.encode(each) for each in pictures[:3]]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", IMAGES)
def test_what_a_file_says_is_found_and_changes_no_pixel(name: str, channels: int) -> None:
    """The text stands where other programs look for it, with the name of the software; the picture is the same."""
    original = picture(channels)
    said, silent = (FORMATS[name].encode(original, text) for text in (TEXT, None))
    image = Image.open(io.BytesIO(said))
    if name == "png":
        assert image.text == {"Software": SOFTWARE, "ganvil": TEXT}  # type: ignore[attr-defined]
    else:
        assert dict(image.getexif()) == {0x010E: TEXT, 0x0131: SOFTWARE}
        xmp = image.info["xmp"]
        assert SOFTWARE.encode() in xmp
        assert b"trainedAlgorithmicMedia" in xmp
    assert np.array_equal(decode(said, channels), decode(silent, channels))
    quiet = Image.open(io.BytesIO(silent))
    assert not quiet.getexif()
    assert b"ganvil" not in silent


def test_jpeg_lays_transparency_over_white() -> None:
    """A fully transparent pixel of an RGBA sample is white in a JPEG, an opaque one keeps its colour."""
    original = np.zeros((16, 16, 4), np.uint8)
    original[8:] = (200, 30, 60, 255)
    pixels = decode(encode(original, "jpeg"), 3).astype(int)
    assert (pixels[:8] >= 250).all()
    assert abs(pixels[8:] - (200, 30, 60)).max() <= 4


def test_jpeg_keeps_colour_at_full_resolution() -> None:
    """Single columns of pure red and blue stay apart: no chroma subsampling."""
    original = np.zeros((16, 16, 3), np.uint8)
    original[:, ::2, 0] = original[:, 1::2, 2] = 255
    pixels = decode(encode(original, "jpeg"), 3).astype(int)
    assert (pixels[:, ::2, 0] > 200).all()
    assert (pixels[:, 1::2, 0] < 60).all()


def test_another_process_encodes_to_the_same_bytes() -> None:
    """Encoded bytes depend on the pixels alone."""
    program = (
        "import sys, json, hashlib, numpy as np; from app.formats import FORMATS\n"
        "p = lambda c: np.random.default_rng(0).integers(0, 256, (9, 13, c), np.uint8)\n"
        "print(json.dumps([hashlib.sha256(f.encode(p(c))).hexdigest() for f in FORMATS.values() for c in (1, 3, 4)]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    ours = [hashlib.sha256(f.encode(picture(c))).hexdigest() for f in FORMATS.values() for c in CHANNELS]
    assert json.loads(run.stdout) == ours


def test_names_extensions_and_media_types_are_distinct() -> None:
    """A format is found by any of the three."""
    assert len(FORMATS) == len({entry.extension for entry in FORMATS.values()}) == len(BY_MEDIA_TYPE)
    for name, entry in FORMATS.items():
        assert name == entry.name
        assert BY_SPELLING[name] is BY_SPELLING[entry.extension] is BY_MEDIA_TYPE[entry.media_type] is entry


@pytest.mark.parametrize("name", [name for name in ("jpeg", "webp", "avif") if name in FORMATS])
def test_a_lower_quality_is_a_smaller_file(name: str) -> None:
    """A quality decides the bytes, and so is part of the encoder's name; every channel survives it."""
    smooth = (
        np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8) ^ picture(3, height=64, width=64) // 16
    )
    low, high = (format_with(name, quality=quality) for quality in (20, 95))
    assert len(low.encode(smooth)) < len(high.encode(smooth))
    assert len({low.encoder, high.encoder, FORMATS[name].encoder}) == 3
    assert (low.quality, low.lossless) == (20, False)
    assert abs(decode(high.encode(smooth), 3).astype(int) - smooth).mean() < 4
    assert Image.open(io.BytesIO(low.encode(picture(4)))).mode == ("RGB" if name == "jpeg" else "RGBA")


def test_webp_loses_only_when_asked_to() -> None:
    """A quality, or lossless=false, makes it lossy; otherwise it stays the format that it is."""
    assert format_with("webp") is format_with("webp", lossless=True) is FORMATS["webp"]
    assert format_with("webp", lossless=False).encoder == format_with("webp", quality=80).encoder
    assert format_with("jpeg", lossless=False) is FORMATS["jpeg"]
    assert format_with("jpeg", quality=90).encoder == FORMATS["jpeg"].encoder


@pytest.mark.parametrize(
    ("name", "options", "pointer"),
    [
        ("png", {"quality": 80}, "#/quality"),
        ("raw", {"quality": 80}, "#/quality"),
        ("jpeg", {"quality": 0}, "#/quality"),
        ("webp", {"quality": 101}, "#/quality"),
        ("webp", {"quality": 80, "lossless": True}, "#/lossless"),
        ("jpeg", {"lossless": True}, "#/lossless"),
        ("png", {"lossless": False}, "#/lossless"),
    ],
)
def test_options_that_a_format_lacks_are_refused(name: str, options: dict[str, int], pointer: str) -> None:
    """Out of range, for a format without it, or one against the other: Invalid, with the field's name."""
    with pytest.raises(Invalid) as caught:
        format_with(name, **options)
    assert caught.value.errors[0].pointer == pointer


def test_gray_and_transparent_pictures_keep_their_mode() -> None:
    """PNG and AVIF store gray as gray; whatever knows transparency keeps it."""
    modes = {name: [Image.open(io.BytesIO(encode(picture(c), name))).mode for c in CHANNELS] for name in IMAGES}
    assert modes["png"] == list(MODES.values())
    assert modes["jpeg"] == ["L", "RGB", "RGB"]
    assert modes["webp"] == ["RGB", "RGB", "RGBA"]
    assert modes.get("avif", list(MODES.values())) == list(MODES.values())
