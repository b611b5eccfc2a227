"""What a small image must not cost: files of a few bytes that claim huge pictures or are made of millions of parts."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.strategies import encode, gray, png_chunks, png_header, write_zip
from tests.worker.preparing import prepare_files, refusal
from worker.data.images import DENSEST, Target, decode, read_header
from worker.data.members import CorruptMember

PIXELS = 100_000_000
SMALL = Target(8, 8, 1, "crop")


def blank_webp(side):
    """A lossless WebP of one colour, which takes no bit for a pixel: five prefix codes of one symbol each."""
    fields = [(0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 4), (0, 3), *[(0b0001, 4)] * 5]
    bits = shift = 0
    for value, width in fields:
        bits |= value << shift
        shift += width
    data = bits.to_bytes(-(-shift // 8), "little")
    data += bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def test_huge_image_in_a_few_bytes_is_left_out(tmp_path):
    """A hundred megapixels in 34 bytes are not decoded; small ones of the kind are."""
    files = {f"{number:02}.png": gray(number) for number in range(20)} | {"bomb.webp": blank_webp(10_000)}
    found = prepare_files(tmp_path, files)
    assert len(found.examples) == 20
    (skipped,) = found.report["skipped"]
    assert (skipped["file"], "10000 x 10000 pixels in" in skipped["reason"]) == ("bomb.webp", True)
    assert decode(blank_webp(2_000), SMALL, PIXELS).width == 2_000


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("1", "PNG", {"optimize": True}),
        ("L", "PNG", {"optimize": True}),
        ("RGB", "WEBP", {}),
        ("L", "JPEG", {"progressive": True, "quality": 10}),
        ("L", "GIF", {}),
    ],
)
def test_blank_scan_is_no_bomb(mode, kind, options):
    """Twenty megapixels with nothing on them, as a scanner writes them, are taken, and by three times the pixels a byte."""
    data = encode(Image.new(mode, (5000, 4000), "white"), kind, **options)
    assert read_header(data, PIXELS).width == 5000
    assert 5000 * 4000 / len(data) < DENSEST / 3


def test_padding_makes_no_image_heavier(tmp_path):
    """Zeros behind a bomb, which its archive packs to nothing, do not help: the upload as a whole is held to the same bound."""
    bomb = blank_webp(10_000)
    files = {f"{number}.webp": bomb + bytes(10_000) for number in range(11)}
    error = refusal(tmp_path, write_zip(tmp_path / "upload.zip", files))
    assert (error.code, "pixels for each byte" in error.message) == ("compression_ratio", True)


def tiny_parts(count):
    """By format: an image of 8 x 8 with so many empty parts before its pixels."""
    chunk = struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    png, jpeg = gray(1), encode(Image.new("L", (8, 8)), "JPEG")
    return {
        "PNG": png[:33] + chunk * count + png[33:],
        "JPEG": jpeg[:2] + b"\xff\xe4\x00\x02" * count + jpeg[2:],
        "PPM": b"P5\n" + b"#\n" * count + b"8 8\n255\n" + bytes(64),
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM"])
def test_image_of_many_tiny_parts_is_left_out(kind):
    """Hundreds of thousands of empty parts, which pack to nothing and take minutes, end the reading; a thousand do not."""
    assert decode(tiny_parts(1_000)[kind], SMALL, PIXELS).pixels.shape == (8, 8, 1)
    with pytest.raises(CorruptMember, match="too many tiny parts"):
        decode(tiny_parts(200_000)[kind], SMALL, PIXELS)


def test_image_in_small_pieces_is_read():
    """A PNG of 16 megapixels in pieces of 8 KiB, as most programs write them."""
    side = 4000
    rows = np.random.default_rng(1).integers(0, 256, (side, side + 1), np.uint8)
    rows[:, 0] = 0  # no filter
    packed = zlib.compress(rows.tobytes(), 0)
    pieces = [(b"IDAT", packed[start : start + 8192]) for start in range(0, len(packed), 8192)]
    data = png_chunks((b"IHDR", png_header(side, side)), *pieces, (b"IEND", b""))
    assert decode(data, SMALL, PIXELS).width == side
