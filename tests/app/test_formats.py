"""Encoding: pixels survive, bytes repeat."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from app.bundles import Bundle
from app.errors import Invalid
from app.formats import (
    BY_EXTENSION,
    BY_MEDIA_TYPE,
    FILM_PIXELS,
    FORMATS,
    MAX_FRAMES,
    MAX_PIXELS,
    check_grid,
    encode,
    film_frames,
    timelapse,
)

CHANNELS = (1, 3, 4)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture(channels: int, *, height: int = 9, width: int = 13, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def decode(data: bytes, channels: int) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_every_number_of_channels(name: str, channels: int) -> None:
    """Each format writes 1, 3 and 4 channels as a file of its own type and of the right size."""
    data = encode(picture(channels), name)
    image = Image.open(io.BytesIO(data))
    assert (image.size, image.get_format_mimetype()) == ((13, 9), FORMATS[name].media_type)
    image.load()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless_formats_keep_every_pixel(name: str, channels: int) -> None:
    """PNG and WebP give back exactly what went in, also where it is transparent."""
    original = picture(channels)
    assert np.array_equal(decode(encode(original, name), channels), original)


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
    assert len(FORMATS) == len(BY_EXTENSION) == len(BY_MEDIA_TYPE)
    assert all(name == entry.name for name, entry in FORMATS.items())


@pytest.mark.parametrize(
    ("n", "columns", "scale", "name"),
    [(1024, 32, 32, "png"), (1024, 1, 1, "webp"), (4096, 1, 1, "jpeg")],
)
def test_a_grid_has_limits(n: int, columns: int, scale: int, name: str) -> None:
    """Too many pixels, or a side that the format cannot have, are refused before anything is made."""
    with pytest.raises(Invalid, match="pixel"):
        check_grid(n, columns, scale, height=32, width=32, format=FORMATS[name])


def test_the_largest_grid_is_allowed() -> None:
    """The limit itself is within the limit."""
    check_grid(1, 1, 1, height=4096, width=MAX_PIXELS // 4096, format=FORMATS["png"])


@pytest.mark.parametrize("channels", CHANNELS)
def test_timelapse_shows_every_picture_in_order(channels: int) -> None:
    """An animated WebP with a frame for each PNG, pixel for pixel, that lasts as long as the fps say."""
    pictures = [picture(channels, seed=seed) for seed in range(4)]
    film = Image.open(io.BytesIO(timelapse([encode(each, "png") for each in pictures], fps=10)))
    assert film.n_frames == 4
    for index, original in enumerate(pictures):
        film.seek(index)
        film.load()
        shown = np.asarray(film.convert(MODES[channels])).reshape(original.shape)
        visible = original[..., -1:] > 0 if channels == 4 else np.True_  # what is transparent has no colour there
        assert np.array_equal(shown * visible, original * visible)
        assert film.info["duration"] == (100 if index < 3 else 1000)


def test_a_film_of_large_pictures_fits_in_memory() -> None:
    """Larger pictures are fewer and, beyond a size, shrunk in proportion: all frames together stay within the budget."""
    frames = {side: film_frames(encode(np.zeros((side, side, 1), np.uint8), "png")) for side in (8, 512, 1024, 2048)}
    assert frames == {8: MAX_FRAMES, 512: MAX_FRAMES, 1024: 64, 2048: 64}
    film = Image.open(io.BytesIO(timelapse([encode(np.zeros((1024, 4096, 1), np.uint8), "png")] * 2, fps=5)))
    assert film.size == (2048, 512)
    assert film.width * film.height * frames[2048] <= FILM_PIXELS


def test_timelapse_of_one_picture_is_that_picture() -> None:
    """One PNG makes a WebP of one frame; none at all is refused."""
    film = Image.open(io.BytesIO(timelapse([encode(picture(1), "png")], fps=5)))
    assert film.n_frames == 1
    with pytest.raises(ValueError, match="at least one"):
        timelapse([], fps=5)


def write_npz() -> bytes:
    bundle = Bundle()
    pieces = []
    with bundle.array("images", (4, 9, 13, 3), np.uint8) as append:
        for part in (slice(0, 3), slice(3, 4)):
            append(np.stack([picture(3, seed=seed) for seed in range(4)])[part])
            pieces.append(bundle.drain())
    with bundle.array("seeds", (4,), np.int64) as append:
        append(np.arange(4))
    assert len(pieces[0]) > 3 * 9 * 13 * 3  # given out as it came in
    return b"".join([*pieces, bundle.close()])


def test_npz_is_written_in_parts_and_read_by_numpy() -> None:
    """Arrays written part by part load without pickle, with their types and values."""
    loaded = np.load(io.BytesIO(write_npz()), allow_pickle=False)
    assert np.array_equal(loaded["images"], np.stack([picture(3, seed=seed) for seed in range(4)]))
    assert (loaded["seeds"].dtype, loaded["seeds"].tolist()) == (np.int64, [0, 1, 2, 3])


def test_bundles_repeat_byte_for_byte() -> None:
    """Nothing of time or place goes into a bundle, and any zip reader takes it."""
    assert write_npz() == write_npz()
    bundle = Bundle()
    bundle.add("a.png", b"one")
    first = bundle.drain()
    bundle.add("b.png", b"two")
    archive = zipfile.ZipFile(io.BytesIO(first + bundle.close()))
    assert archive.testzip() is None
    assert [info.date_time for info in archive.infolist()] == [(1980, 1, 1, 0, 0, 0)] * 2
    assert archive.read("b.png") == b"two"
