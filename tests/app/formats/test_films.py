"""Films: each picture in its turn."""

import io

import numpy as np
import pytest
from PIL import Image

from app.formats import FILM_PIXELS, MAX_FRAMES, encode, film_frames, timelapse
from tests.pictures import CHANNELS, MODES, picture


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
