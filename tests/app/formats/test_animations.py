"""Samples that follow one another in one file."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from app.errors import Invalid
from app.formats.animations import ANIMATIONS, check_animation, find_animation
from app.formats.films import FRAME_PIXELS, MAX_FRAMES

WEBP, GIF = ANIMATIONS["webp"], ANIMATIONS["gif"]


def moving(channels: int, n: int = 6, side: int = 16) -> np.ndarray:
    """Frames of noise, so that no two are alike."""
    return np.random.default_rng(channels).integers(0, 256, (n, side, side, channels), np.uint8)


def shown(data: bytes, mode: str) -> tuple[list[np.ndarray], list[int]]:
    """What one sees: the pixels of each frame, and for how many milliseconds."""
    image = Image.open(io.BytesIO(data))
    frames = [(np.asarray(frame.convert(mode)), frame.info["duration"]) for frame in ImageSequence.Iterator(image)]
    return [pixels for pixels, _ in frames], [duration for _, duration in frames]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_webp_has_every_pixel(channels: int, scale: int) -> None:
    """Each frame is the sample, with each pixel repeated."""
    frames = moving(channels)
    pixels, durations = shown(WEBP.encode(frames, 8, scale=scale), "RGB")
    expected = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    assert np.array_equal(pixels, np.broadcast_to(expected, (*expected.shape[:3], 3)))
    assert durations == [125] * 6


def test_a_webp_shows_transparency() -> None:
    """The same transparency, and the same colours wherever any can be seen."""
    frames = moving(4)
    frames[:, :8, :, 3] = 0
    pixels, _ = shown(WEBP.encode(frames, 8), "RGBA")
    assert np.array_equal(np.array(pixels)[..., 3], frames[..., 3])
    seen = frames[..., 3] > 0
    assert np.array_equal(np.array(pixels)[seen], frames[seen])


def test_a_gray_gif_has_every_pixel() -> None:
    """It needs no more than 256 colours."""
    frames = moving(1)
    pixels, _ = shown(GIF.encode(frames, 10), "L")
    assert np.array_equal(pixels, frames[..., 0])


@pytest.mark.parametrize("channels", [3, 4])
def test_a_gif_has_256_colours_for_each_frame(channels: int) -> None:
    """Close to the sample, and over white where that is transparent."""
    frames = np.zeros((4, 32, 32, channels), np.uint8)
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    for index, frame in enumerate(frames):
        frame[..., 0], frame[..., 1] = ramp, ramp[:, None]
        frame[..., 2] = 60 * index
        frame[..., 3:] = 255
    frames[:, :4, :, 3:] = 0
    pixels, _ = shown(GIF.encode(frames, 10), "RGB")
    assert all(len(np.unique(each.reshape(-1, 3), axis=0)) <= 256 for each in pixels)
    assert np.abs(np.array(pixels, int)[:, 4:] - frames[:, 4:, :, :3]).mean() < 8
    assert channels == 3 or (np.array(pixels)[:, :4] > 250).all()


@pytest.mark.parametrize("name", ANIMATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_same_frames_are_the_same_bytes(name: str, channels: int) -> None:
    """Nothing of time or chance goes in."""
    frames = moving(channels)
    made = {ANIMATIONS[name].encode(frames, 12, scale=2) for _ in range(2)}
    assert len(made) == 1
    assert Image.open(io.BytesIO(made.pop())).format == name.upper()


@pytest.mark.parametrize(
    ("name", "fps", "expected"),
    [("webp", 15, 67), ("webp", 60, 17), ("webp", 0.1, 10_000), ("gif", 15, 70), ("gif", 60, 20), ("gif", 0.1, 10_000)],
)
def test_frames_stay_for_their_time(name: str, fps: float, expected: int) -> None:
    """A WebP counts in milliseconds, a GIF in hundredths of a second and no less than two, which browsers would slow down."""
    _, durations = shown(ANIMATIONS[name].encode(moving(3), fps), "RGB")
    assert durations == [expected] * 6


@pytest.mark.parametrize("name", ANIMATIONS)
def test_the_end_rests_where_the_film_does_not_come_round(name: str) -> None:
    """For a second at the least, so that the jump to the beginning can be told from the way."""
    _, durations = shown(ANIMATIONS[name].encode(moving(3), 10, round_trip=False), "RGB")
    assert durations == [100] * 5 + [1000]
    assert Image.open(io.BytesIO(ANIMATIONS[name].encode(moving(3), 10))).info["loop"] == 0


@pytest.mark.parametrize(
    ("frames", "side", "scale", "pointer"),
    [
        (MAX_FRAMES, 32, 1, None),
        (MAX_FRAMES + 1, 32, 1, "#/frames"),
        (64, 1024, 1, None),
        (65, 1024, 1, "#/frames"),
        (64, 128, 8, None),
        (65, 128, 8, "#/frames"),
        (2, 1025, 1, "#/scale"),
        (2, 128, 9, "#/scale"),
    ],
)
def test_films_are_bounded(frames: int, side: int, scale: int, pointer: str | None) -> None:
    """In frames, in the pixels of one, and in those of all, which lie in memory together."""
    if pointer is None:
        check_animation(frames, height=side, width=side, scale=scale)
        return
    with pytest.raises(Invalid, match=f"{side * scale} x {side * scale}") as refused:
        check_animation(frames, height=side, width=side, scale=scale)
    assert refused.value.errors[0].pointer == pointer
    assert str(FRAME_PIXELS) in refused.value.detail or pointer == "#/frames"


@pytest.mark.parametrize(("name", "said"), [("mp4", "video.*webp, gif"), ("apng", "webp, gif")])
def test_other_formats_are_refused(name: str, said: str) -> None:
    """The message says what there is, and why there is no mp4."""
    with pytest.raises(ValueError, match=said):
        find_animation(name)
