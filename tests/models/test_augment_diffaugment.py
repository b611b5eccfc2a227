"""DiffAugment's transforms against plain references."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.augment import Augmentation, make_augmentation
from models.config import Augment
from tests.models.augmenting import CLOSED, HALF, Image, closed_but, pictures, uniform, with_hole

SHAPES = [(1, 8, 8), (3, 8, 8), (4, 8, 8), (3, 6, 17)]
OPEN = 0.1


def made(*policy: Any) -> Augmentation:
    augmentation = make_augmentation(Augment(kind="diffaugment", policy=policy))
    assert augmentation is not None
    return augmentation


def applied(image: Tensor, opened: dict[int, float], *policy: str) -> Image:
    """The one image [1, C, H, W] under the numbers given."""
    augmentation = made(*policy)
    result: Image = augmentation(image, closed_but(augmentation.numbers, opened), HALF)[0].numpy()
    return result


def brighter(x: Image, number: float) -> Image:
    return x + (number - 0.5)


def more_saturated(x: Image, number: float) -> Image:
    grey = x.mean(axis=0)
    return np.stack([grey + 2 * number * (channel - grey) for channel in x])


def with_contrast(x: Image, number: float) -> Image:
    return x.mean() + (0.5 + number) * (x - x.mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [0.03, 0.5, 0.9])
@pytest.mark.parametrize(("column", "reference"), [(0, brighter), (2, more_saturated), (4, with_contrast)])
def test_each_change_of_colour(shape: tuple[int, int, int], number: float, column: int, reference: Any) -> None:
    """Brightness by -0.5 to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5, of the colours; alpha stays."""
    image = pictures(1, *shape, dtype=torch.float64)
    expected = image[0].numpy().copy()
    expected[:3] = reference(expected[:3], number)
    np.testing.assert_allclose(applied(image, {column: number, column + 1: OPEN}, "color"), expected, atol=1e-6)


def test_colours_change_in_the_papers_order() -> None:
    """Brightness, then saturation, then contrast."""
    image = pictures(1, 3, 4, 5, dtype=torch.float64)
    expected = with_contrast(more_saturated(brighter(image[0].numpy(), 0.8), 0.3), 0.9)
    opened = {0: 0.8, 1: OPEN, 2: 0.3, 3: OPEN, 4: 0.9, 5: OPEN}
    np.testing.assert_allclose(applied(image, opened, "color"), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.0, 0.99), (0.99, 0.4), (0.5, 0.5)])
def test_translation_is_by_whole_pixels_up_to_an_eighth(shape: tuple[int, int, int], down: float, right: float) -> None:
    """From -m to m, m being an eighth of the size rounded, each equally likely; zeros come in."""
    _, H, W = shape
    image = pictures(1, *shape, dtype=torch.float64)
    most = [int(size / 8 + 0.5) for size in (H, W)]
    dy, dx = (int(number * (2 * m + 1)) - m for number, m in zip((down, right), most, strict=True))
    expected = np.zeros(shape)
    expected[:, max(dy, 0) : H + min(dy, 0), max(dx, 0) : W + min(dx, 0)] = image[
        0, :, max(-dy, 0) : H - max(dy, 0), max(-dx, 0) : W - max(dx, 0)
    ].numpy()
    np.testing.assert_array_equal(applied(image, {0: down, 1: right, 2: OPEN}, "translation"), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("y", "x"), [(0.5, 0.5), (0.01, 0.9), (0.7, 0.3)])
def test_cutout_is_half_of_each_side(shape: tuple[int, int, int], y: float, x: float) -> None:
    """Its middle lies anywhere in the image."""
    image = pictures(1, *shape, dtype=torch.float64)
    np.testing.assert_array_equal(applied(image, {0: y, 1: x, 2: OPEN}, "cutout"), with_hole(image[0].numpy(), y, x))


def test_parts_come_in_the_policys_order() -> None:
    """A hole made before the brightness changes is no longer zero after it."""
    image = torch.ones(1, 1, 8, 8)
    hole, bright = {0: 0.5, 1: 0.5, 2: OPEN}, {0: 0.75, 1: OPEN}
    first = applied(image, hole | {3 + column: number for column, number in bright.items()}, "cutout", "color")
    last = applied(image, bright | {6 + column: number for column, number in hole.items()}, "color", "cutout")
    assert (first[0, 4, 4], last[0, 4, 4]) == (0.25, 0)
    assert first[0, 0, 0] == last[0, 0, 0] == 1.25


@pytest.mark.parametrize(
    ("policy", "numbers_of_it"), [("color", (0, 1)), ("color", (2, 3)), ("color", (4, 5)), ("cutout", (0, 1, 2))]
)
@pytest.mark.parametrize("probability", [0.2, 0.7])
def test_each_transform_is_applied_as_often_as_told(
    policy: str, numbers_of_it: tuple[int, ...], probability: float
) -> None:
    """The share of images that it changes is the probability."""
    n, augmentation = 2_000, made(policy)
    numbers = torch.full((n, augmentation.numbers), CLOSED)
    numbers[:, numbers_of_it] = uniform(n, len(numbers_of_it))
    images = pictures(1, 3, 8, 8).expand(n, -1, -1, -1)
    changed = augmentation(images, numbers, torch.tensor(probability)) != images
    share = changed.flatten(1).any(dim=1).float().mean().item()
    assert share == pytest.approx(probability, abs=4 * (0.25 / n) ** 0.5)


def test_values_stay_as_they_are_on_average() -> None:
    """Over many draws brightness adds nothing, and contrast and saturation keep the spread to within what their factors do."""
    n, augmentation = 4_000, made("color")
    image = pictures(1, 3, 8, 8)
    result = augmentation(image.expand(n, -1, -1, -1), uniform(n, augmentation.numbers), torch.tensor(1.0))
    torch.testing.assert_close(result.mean(dim=0), image[0], atol=0.05, rtol=0)
    brightness = result.mean(dim=(1, 2, 3)) - image.mean()
    assert brightness.abs().max() < 0.5 + 1e-5
    assert brightness.std().item() == pytest.approx(12**-0.5, rel=0.05)  # of a uniform number of width 1
