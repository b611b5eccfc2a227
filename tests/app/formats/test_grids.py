"""Pictures for the eye: limits, enlarging, captions."""

import numpy as np
import pytest

from app.errors import Invalid
from app.formats import FORMATS, MAX_PIXELS, captions, check_grid, check_scale, grid, upscale
from models.pictures import tile
from tests.pictures import CHANNELS, picture

SEEDS = [0, 12, 9_223_372_036_854_775_807]


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


def test_captions_count_against_the_limit() -> None:
    """A grid that fits without captions may be too large with them."""
    shape = {"height": 8, "width": 8, "format": FORMATS["png"]}
    check_grid(1024, 32, 16, **shape)
    with pytest.raises(Invalid, match="smaller scale"):
        check_grid(1024, 32, 16, **shape, captions=captions(range(1024), ["cat"] * 1024))


def test_a_sample_is_enlarged_within_the_limit() -> None:
    """Each pixel becomes a square, down and across, of one picture or of many; what would be too large is refused by its field."""
    pictures = np.stack([picture(3, seed=seed) for seed in range(2)])
    large = upscale(pictures, 3)
    assert large.shape == (2, 27, 39, 3)
    assert all(np.array_equal(large[:, down::3, right::3], pictures) for down in range(3) for right in range(3))
    assert np.array_equal(upscale(pictures[0], 3), large[0])
    check_scale(16, height=256, width=256, format=FORMATS["webp"])
    for height, name in ((256, "png"), (8, "webp")):
        with pytest.raises(Invalid, match="A sample of") as caught:
            check_scale(32 if height == 256 else 2048, height=height, width=height, format=FORMATS[name])
        assert caught.value.errors[0].pointer == "#/scale"


@pytest.mark.parametrize("channels", CHANNELS)
def test_labelled_tiles_keep_their_pixels(channels: int) -> None:
    """Above each caption stands the sample, enlarged, and nothing else changes it; captions are opaque white on black."""
    images = np.stack([picture(channels, seed=seed) for seed in range(3)])
    drawn = grid(images, 2, captions(SEEDS, ["cat", None, "Käfer"]), scale=2)
    assert drawn.shape == (2 * (18 + 25), 2 * (2 + 20 * 6), channels)
    for index in range(3):
        top, left = index // 2 * 43, index % 2 * 122 + (122 - 26) // 2
        assert np.array_equal(drawn[top : top + 18, left : left + 26], upscale(images[index], 2))
        strip = drawn[top + 18 : top + 43, index % 2 * 122 : index % 2 * 122 + 122]
        assert set(np.unique(strip[..., : min(channels, 3)])) == {0, 255}
        assert channels < 4 or (strip[..., 3] == 255).all()


def test_captions_tell_samples_apart() -> None:
    """Every character of a seed is drawn; long names are cut, letters that the font lacks are question marks; always the same."""
    black = np.zeros((1, 8, 8, 1), np.uint8)

    def drawn(text: str) -> bytes:
        return grid(black, 1, [text]).tobytes()

    assert captions([7, 7], ["3", None]) == ["3\n#7", "#7"]
    assert len({drawn(text) for text in captions(range(200), [None] * 200)}) == 200
    assert drawn("日本") == drawn("??") != drawn("")
    assert drawn("x" * 100) == drawn("x" * 22 + "..")
    assert drawn("cat\n7") == drawn("cat\n7") != drawn("cat\n8")
    assert np.array_equal(grid(black, 1, [""])[:8, :8], tile(black, 1))
