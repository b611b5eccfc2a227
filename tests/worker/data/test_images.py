"""How an image becomes an example: every mode against pixels that are computed here, and the rules of size and channels."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.strategies import encode, gray, pixels, png_chunks, png_header
from tests.worker.preparing import prepare_files
from worker.data.images import Target, decode, read_header
from worker.data.members import CorruptMember

LIMIT = 10_000_000
RNG = np.random.default_rng(7)


def decoded(data, channels, height=None, width=None, fit="stretch"):
    """The pixels of a file, in its own size unless another is given."""
    header = read_header(data, LIMIT)
    return decode(data, Target(height or header.height, width or header.width, channels, fit), LIMIT).pixels


def over_white(colour, alpha):
    """The definition of laying over white, in floating point."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
@given(array=pixels(1))
@settings(max_examples=20)
def test_gray_is_kept(kind, array):
    """8 bit gray comes out as it went in."""
    assert np.array_equal(decoded(encode(array, kind), 1)[..., 0], array)


@given(array=pixels(3), kind=st.sampled_from(["PNG", "BMP", "TIFF", "PPM", "WEBP"]))
@settings(max_examples=50)
def test_rgb_is_kept(array, kind):
    """RGB comes out as it went in."""
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decoded(encode(array, kind, **options), 3), array)


@given(array=pixels(4))
@settings(max_examples=50)
def test_rgba_is_kept_or_laid_over_white(array):
    """In four channels alpha is kept; in three it is laid over white."""
    data = encode(array)
    assert np.array_equal(decoded(data, 4), array)
    assert np.abs(decoded(data, 3) - over_white(array[..., :3], array[..., 3])).max() <= 1


@given(array=pixels(2))
@settings(max_examples=50)
def test_gray_with_alpha_is_laid_over_white(array):
    """Gray with alpha stays gray, over white; in four channels all three colours are the gray."""
    data = encode(Image.fromarray(array, "LA"))
    assert np.abs(decoded(data, 1) - over_white(array[..., :1], array[..., 1])).max() <= 1
    assert np.array_equal(decoded(data, 4), array[..., [0, 0, 0, 1]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray_is_scaled(kind):
    """The whole range of 16 bits is scaled to 8 and rounded, not clipped."""
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(decoded(encode(Image.fromarray(wide), kind), 1)[..., 0], np.rint(wide / 257))


def test_big_endian_sixteen_bit_gray_is_scaled():
    """The byte order of a 16 bit TIFF does not matter."""
    wide = np.arange(65536, dtype=">u2").reshape(256, 256)
    data = encode(Image.fromarray(wide), "TIFF")
    assert data.startswith(b"MM")
    assert np.array_equal(decoded(data, 1)[..., 0], np.rint(wide / 257))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode):
    """32 bit pixels have no agreed range, and the reason says what to do."""
    with pytest.raises(CorruptMember, match="save it with 8 or 16 bits"):
        decoded(encode(Image.new(mode, (8, 8)), "TIFF"), 1)


def test_one_bit_is_black_and_white():
    """1 bit becomes 0 and 255."""
    bits = RNG.integers(0, 2, (9, 13)).astype(bool)
    assert np.array_equal(decoded(encode(Image.fromarray(bits)), 1)[..., 0], np.where(bits, 255, 0))


def palette_image(indices):
    image = Image.fromarray(indices, "P")
    image.putpalette(COLOURS.tobytes())
    return image


COLOURS = RNG.integers(0, 256, (16, 3)).astype(np.uint8)
INDICES = RNG.integers(0, 16, (11, 7)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette_becomes_its_colours(kind):
    """Each index becomes its palette's colour."""
    assert np.array_equal(decoded(encode(palette_image(INDICES), kind), 3), COLOURS[INDICES])


def test_palette_with_transparency_has_alpha():
    """A palette whose entries are transparent gives alpha: kept in four channels, white in three."""
    alphas = np.arange(16, dtype=np.uint8) * 17
    data = encode(palette_image(INDICES), transparency=alphas.tobytes())
    expected = np.concatenate([COLOURS[INDICES], alphas[INDICES][..., None]], axis=2)
    assert np.array_equal(decoded(data, 4), expected)
    assert np.abs(decoded(data, 3) - over_white(COLOURS[INDICES], alphas[INDICES])).max() <= 1


def test_one_transparent_colour_has_alpha():
    """A PNG that names one colour as transparent has alpha there and nowhere else."""
    array = RNG.integers(0, 4, (9, 9)).astype(np.uint8)
    found = decoded(encode(Image.fromarray(array), transparency=2), 4)
    assert np.array_equal(found[..., 3], np.where(array == 2, 0, 255))


def test_cmyk_becomes_rgb():
    """Ink becomes light: (255 - ink)(255 - black) / 255."""
    ink = RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8)
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    assert np.abs(decoded(encode(Image.fromarray(ink, "CMYK"), "TIFF"), 3) - expected).max() <= 1


def test_ycbcr_becomes_rgb():
    """Luma and chroma become RGB by ITU-R BT.601."""
    y, cb, cr = (RNG.integers(64, 192, (8, 8)).astype(np.uint8) for _ in range(3))
    blue, red = cb.astype(float) - 128, cr.astype(float) - 128
    expected = np.dstack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue]).clip(0, 255)
    image = Image.merge("YCbCr", [Image.fromarray(band) for band in (y, cb, cr)])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0)
    assert np.abs(decoded(buffer.getvalue(), 3) - expected).max() <= 4  # JPEG itself is not exact


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    """An image comes out as a viewer shows it, with the size that it has then."""
    array = RNG.integers(0, 256, (5, 8, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(array, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = UPRIGHT[orientation](array)
    header = read_header(data, LIMIT)
    assert (header.height, header.width) == expected.shape[:2]
    assert np.array_equal(decoded(data, 3), expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    """Of several frames or pages the first one counts."""
    frames = [Image.new("L", (8, 8), value) for value in (200, 100, 50)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decoded(data, 3) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(8, 16), (16, 8), (64, 24), (5, 5), (40, 41)])
def test_pad_keeps_the_whole_image(height, width):
    """`pad` fits the image in, centred, with black around it."""
    found = decoded(encode(np.full((height, width), 255, np.uint8)), 1, 16, 16, "pad")[..., 0]
    scale = 16 / max(height, width)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (len(rows), len(columns)) == (round(height * scale), round(width * scale))
    assert found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].min() == 255
    assert abs(rows[0] - (15 - rows[-1])) <= 1
    assert abs(columns[0] - (15 - columns[-1])) <= 1


def test_pad_is_transparent_where_there_is_alpha():
    """In four channels what `pad` adds is transparent."""
    found = decoded(encode(np.full((8, 16, 4), 255, np.uint8)), 4, 16, 16, "pad")
    assert (found[:4] == 0).all()
    assert (found[4:12] == 255).all()


def test_crop_keeps_the_middle():
    """`crop` takes the largest centred square: the sides of a wide image are gone, without resampling if the size fits."""
    array = RNG.integers(0, 256, (16, 48)).astype(np.uint8)
    assert np.array_equal(decoded(encode(array), 1, 16, 16, "crop")[..., 0], array[:, 16:32])


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("size", [8, 20, 100, 300])
def test_resizing_keeps_a_ramp(fit, size):
    """A linear ramp stays the same ramp when shrunk or enlarged (away from the borders)."""
    ramp = np.linspace(20, 220, 160)
    found = decoded(encode(np.tile(np.rint(ramp).astype(np.uint8), (160, 1))), 1, size, size, fit)[..., 0]
    positions = (np.arange(size) + 0.5) * 160 / size - 0.5
    expected = 20 + positions * 200 / 159
    inner = slice(size // 8, -size // 8)
    assert np.abs(found - expected)[:, inner].max() <= 1.5


def test_resizing_does_not_mix_in_hidden_colours():
    """The colour under full transparency has no part in its neighbours."""
    array = np.zeros((16, 16, 4), np.uint8)
    array[:, :8] = (255, 0, 0, 255)
    array[:, 8:] = (0, 255, 0, 0)
    assert decoded(encode(array), 3, 5, 5)[..., 1:].min() >= 0
    found = decoded(encode(array), 4, 5, 5)
    assert found[found[..., 3] > 8][:, 1].max() == 0


def test_large_jpeg_is_decoded_at_lower_resolution_without_a_visible_difference():
    """The short cut through JPEG's scaled decoding is within 2 levels of the long way, on the average."""
    y, x = np.mgrid[0:640, 0:960] / 60
    array = np.dstack([128 + 100 * np.sin(x), 128 + 100 * np.cos(y), 128 + 100 * np.sin(x + y)]).astype(np.uint8)
    data = encode(array, "JPEG", quality=95)
    full = encode(np.asarray(Image.open(io.BytesIO(data))))
    assert np.abs(decoded(data, 3, 32, 32, "crop").astype(int) - decoded(full, 3, 32, 32, "crop")).mean() < 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            png_chunks((b"IHDR", png_header(5_000, 5_000)), (b"IDAT", b""), (b"IEND", b"")),
            "too many pixels, 5000 x 5000",
        ),
        (png_chunks((b"IHDR", png_header(60_000, 60_000)), (b"IDAT", b""), (b"IEND", b"")), "too many pixels"),
        (b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + b"\x2c" + bytes(20), "too many pixels"),
        (encode(Image.new("RGB", (16, 16)), "ICO"), "not of a supported format"),
        (encode(Image.new("RGB", (16, 16)), "EPS"), "not of a supported format"),
        (b"PK\x03\x04 an archive within the archive", "not of a supported format"),
        (b"", "not of a supported format"),
        (gray(3, 64, 64)[:60], "cannot be decoded"),
    ],
    ids=["bomb", "huge bomb", "GIF bomb", "ICO", "EPS", "zip", "empty", "truncated"],
)
def test_what_cannot_be_used_says_why(data, reason):
    """Pixel bombs are refused by their header, other formats without a try, damaged files when they are decoded."""
    with pytest.raises(CorruptMember, match=reason):
        decoded(data, 1)


def test_text_of_a_png_is_not_unpacked_without_limit():
    """A text chunk that unpacks to 100 MB makes the image unusable and costs no memory."""
    bomb = b"Comment\0\0" + zlib.compress(bytes(100_000_000))
    data = png_chunks((b"IHDR", png_header(8, 8)), (b"zTXt", bomb), (b"IDAT", zlib.compress(bytes(72))), (b"IEND", b""))
    with pytest.raises(CorruptMember, match="cannot be decoded"):
        decoded(data, 1)


def test_jpeg_of_many_scans_is_refused(tmp_path):
    """A small JPEG that makes its decoder pass over the image thousands of times is left out before that; ten times are usual."""
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(file, "JPEG", progressive=True)
    sound = file.getvalue()
    scan = sound[sound.rindex(b"\xff\xda") : -2]
    files = {f"{number:02}.jpg": sound for number in range(20)} | {"bomb.jpg": sound[:-2] + scan * 200 + sound[-2:]}
    found = prepare_files(tmp_path, files)
    assert len(found.examples) == 20
    (skipped,) = found.report["skipped"]
    assert (skipped["file"], "scans" in skipped["reason"]) == ("bomb.jpg", True)
