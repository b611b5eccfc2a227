"""ADA's transforms against plain references. A comment says which columns of the numbers a transform reads, its gate last."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch

from models.augment import Augmentation, ada, make_augmentation
from models.augment.draws import Draws
from models.config import Augment
from tests.models.augmenting import CLOSED, HALF, Image, closed_but, pictures, sampled, uniform, with_hole

SHAPES = [(1, 8, 8), (3, 8, 8), (4, 8, 8), (3, 6, 11)]
OPEN = 0.1
Place = Callable[..., tuple[float, float]]  # x, y from the middle, W, H, to those in the image


def normal(number: float) -> float:
    return NormalDist().inv_cdf(number)


def made(*, flip: bool = False) -> Augmentation:
    augmentation = make_augmentation(Augment(kind="ada", flip=flip))
    assert augmentation is not None
    return augmentation


def applied(image: torch.Tensor, opened: dict[int, float], *, flip: bool = False) -> Image:
    """The one image [1, C, H, W] under the numbers given."""
    result: Image = made(flip=flip)(image, closed_but(ada.NUMBERS, opened), HALF)[0].numpy()
    return result


def turned(angle: float, x: float, y: float) -> tuple[float, float]:
    return math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y


ZOOM, STRETCH, ANGLE = 2 ** (0.2 * normal(0.9)), 2 ** (0.2 * normal(0.2)), math.pi * (2 * 0.7 - 1)
GEOMETRY: dict[str, tuple[dict[int, float], Place]] = {
    "mirror": ({0: 0.8, 1: OPEN}, lambda x, y, *_: (-x, y)),
    "not mirrored": ({0: 0.3, 1: OPEN}, lambda x, y, *_: (x, y)),
    "half a turn": ({2: 0.6, 3: OPEN}, lambda x, y, *_: (-x, -y)),
    "whole pixels": (
        {4: 0.05, 5: 0.9, 6: OPEN},
        lambda x, y, W, H: (x + round(-0.1125 * W), y + round(0.1 * H)),
    ),
    "zoom": ({7: 0.9, 8: OPEN}, lambda x, y, *_: (ZOOM * x, ZOOM * y)),
    "turn before": ({9: 0.7, 10: OPEN}, lambda x, y, *_: turned(ANGLE, x, y)),
    "stretch": ({11: 0.2, 12: OPEN}, lambda x, y, *_: (STRETCH * x, y / STRETCH)),
    "turn after": ({13: 0.7, 14: OPEN}, lambda x, y, *_: turned(ANGLE, x, y)),
    "parts of pixels": (
        {15: 0.3, 16: 0.8, 17: OPEN},
        lambda x, y, W, H: (x + 0.125 * normal(0.3) * W, y + 0.125 * normal(0.8) * H),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(GEOMETRY))
def test_each_geometric_transform(name: str, shape: tuple[int, int, int]) -> None:
    """Alone, it takes each pixel from where the paper's ranges put it, about the middle of the image, mirrored at the edges."""
    opened, place = GEOMETRY[name]
    _, H, W = shape
    image = pictures(1, *shape, dtype=torch.float64)

    def source(column: float, row: float) -> tuple[float, float]:
        x, y = place(column - (W - 1) / 2, row - (H - 1) / 2, W, H)
        return x + (W - 1) / 2, y + (H - 1) / 2

    np.testing.assert_allclose(applied(image, opened, flip=True), sampled(image[0].numpy(), source), atol=1e-5)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_square_images_turn_by_quarters_exactly(quarters: int) -> None:
    """No value is blended: the pixels of the turned image are those of the image."""
    image = pictures(1, 3, 8, 8, dtype=torch.float64)
    result = applied(image, {2: (quarters + 0.5) / 4, 3: OPEN})
    np.testing.assert_allclose(result, np.rot90(image[0].numpy(), quarters, axes=(1, 2)), atol=1e-6)


def test_mirrors_only_where_the_data_is_mirrored() -> None:
    """Without `flip` the same numbers leave the image as it is."""
    image = pictures(1, 3, 8, 8)
    assert np.array_equal(applied(image, {0: 0.8, 1: OPEN}), image[0].numpy())


def test_all_of_the_geometry_is_one_map_composed_as_in_the_paper() -> None:
    """G of the paper's appendix B, of the inverse of each step, is the inverse of the map from the result to the image."""
    H, W = 8, 12
    numbers = uniform(64, ada.NUMBERS)
    numbers[:, [1, 3, 6, 8, 10, 12, 14, 17]] = 0.001
    maps = ada._geometry(Draws(numbers, torch.tensor(0.9)), H, W, flip=True).double().numpy()
    for u, found in zip(numbers.double().tolist(), maps, strict=True):
        angles = [math.pi * (1 - 2 * u[column]) for column in (9, 13)]
        zoom, stretch = 2 ** (-0.2 * normal(u[7])), 2 ** (-0.2 * normal(u[11]))
        steps = [
            np.diag([1 - 2 * (u[0] >= 0.5), 1, 1]),
            np.diag([1 - 2 * (u[2] >= 0.5)] * 2 + [1]),  # by quarters only where the image is square
            [[1, 0, -round((u[4] - 0.5) / 4 * W)], [0, 1, -round((u[5] - 0.5) / 4 * H)], [0, 0, 1]],
            np.diag([zoom, zoom, 1]),
            [[*turned(-angles[0], 1, 0), 0], [*turned(-angles[0], 0, 1), 0], [0, 0, 1]],
            np.diag([stretch, 1 / stretch, 1]),
            [[*turned(-angles[1], 1, 0), 0], [*turned(-angles[1], 0, 1), 0], [0, 0, 1]],
            [[1, 0, -normal(u[15]) * W / 8], [0, 1, -normal(u[16]) * H / 8], [0, 0, 1]],
        ]
        G = np.eye(3)
        for step in steps:
            G = np.array(step) @ G
        np.testing.assert_allclose(found, np.linalg.inv(G), atol=1e-4)


V = np.full(3, 3**-0.5)
LUMA = np.outer(V, V)
HUE = math.pi * (2 * 0.7 - 1)
CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * 3**-0.5
COLOUR: dict[str, tuple[dict[int, float], Image, float]] = {  # columns, a map of RGB, and what is added before it
    "brightness": ({18: 0.9, 19: OPEN}, np.eye(3), 0.2 * normal(0.9)),
    "contrast": ({20: 0.2, 21: OPEN}, 2 ** (0.5 * normal(0.2)) * np.eye(3), 0),
    "luma": ({22: 0.7, 23: OPEN}, np.eye(3) - 2 * LUMA, 0),
    "hue": ({24: 0.7, 25: OPEN}, LUMA + math.cos(HUE) * (np.eye(3) - LUMA) + math.sin(HUE) * CROSS, 0),
    "saturation": ({26: 0.9, 27: OPEN}, LUMA + 2 ** normal(0.9) * (np.eye(3) - LUMA), 0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(COLOUR))
def test_each_transform_of_colour(name: str, shape: tuple[int, int, int]) -> None:
    """Alone, it maps RGB as the paper does; grey has no luma, hue and saturation to change, and alpha stays."""
    opened, matrix, added = COLOUR[name]
    image = pictures(1, *shape, dtype=torch.float64)
    expected = image[0].numpy().copy()
    if shape[0] >= 3:
        expected[:3] = np.einsum("ij,jhw->ihw", matrix, expected[:3] + added)
    elif name in {"brightness", "contrast"}:
        expected = matrix[0, 0] * (expected + added)
    np.testing.assert_allclose(applied(image, opened), expected, atol=1e-5)


def test_all_of_the_colour_is_one_map_composed_as_in_the_paper() -> None:
    """Brightness, contrast, luma, hue, saturation, one after the other."""
    image = pictures(1, 3, 4, 4, dtype=torch.float64)
    opened: dict[int, float] = {}
    expected = image[0].numpy()
    for columns, matrix, added in COLOUR.values():
        opened |= columns
        expected = np.einsum("ij,jhw->ihw", matrix, expected + added)
    np.testing.assert_allclose(applied(image, opened), expected, atol=1e-5)


def test_a_turned_hue_keeps_grey_and_goes_round() -> None:
    """A third of a turn takes red to green, green to blue and blue to red, and grey nowhere."""
    colours = torch.tensor([[1.0, 0, 0, 0.3], [0, 1.0, 0, 0.3], [0, 0, 1.0, 0.3]], dtype=torch.float64).view(1, 3, 2, 2)
    expected = colours.roll(1, dims=1)[0].numpy()
    np.testing.assert_allclose(applied(colours, {24: 0.5 + 1 / 3, 25: OPEN}), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutout_comes_last(shape: tuple[int, int, int]) -> None:
    """Half of each side, around a place anywhere, in zeros that brightness no longer changes."""
    image = pictures(1, *shape, dtype=torch.float64)
    bright = applied(image, {18: 0.9, 19: OPEN})
    result = applied(image, {18: 0.9, 19: OPEN, 28: 0.7, 29: 0.3, 30: OPEN})
    np.testing.assert_array_equal(result, with_hole(bright, 0.7, 0.3))


@pytest.mark.parametrize("probability", [0.2, 0.7])
@pytest.mark.parametrize(
    ("columns", "of_those"),  # the transform's, and the share of its draws that change an image
    [
        ((0, 1), 1 / 2),
        ((2, 3), 3 / 4),
        ((4, 5, 6), 1 - 1 / 8**2),  # of 32 pixels, -4 to 4, with halves of the outermost
        ((7, 8), 1),
        ((11, 12), 1),
        ((15, 16, 17), 1),
        ((18, 19), 1),
        ((20, 21), 1),
        ((22, 23), 1 / 2),
        ((24, 25), 1),
        ((26, 27), 1),
        ((28, 29, 30), 1),
    ],
)
def test_each_transform_is_applied_as_often_as_told(
    columns: tuple[int, ...], of_those: float, probability: float
) -> None:
    """The share of images that it changes is the probability, times that of the draws that are no identity."""
    assert share_changed(columns, probability) == pytest.approx(probability * of_those, abs=0.06)


@pytest.mark.parametrize("probability", [0.2, 0.7])
def test_images_turn_as_often_as_told_by_either_of_two_turns(probability: float) -> None:
    """Before the stretching, after it, or both: in all with the probability of the other transforms."""
    assert share_changed((9, 10), probability) == pytest.approx(1 - (1 - probability) ** 0.5, abs=0.06)
    assert share_changed((9, 10, 13, 14), probability) == pytest.approx(probability, abs=0.06)


def share_changed(columns: tuple[int, ...], probability: float) -> float:
    """Of 1,000 images, when all gates are closed but those in these columns."""
    n = 1_000
    numbers = torch.full((n, ada.NUMBERS), CLOSED)
    numbers[:, columns] = uniform(n, len(columns), seed=columns[0])
    images = pictures(1, 3, 32, 32).expand(n, -1, -1, -1)
    changed = made(flip=True)(images, numbers, torch.tensor(probability)) != images
    return changed.flatten(1).any(dim=1).float().mean().item()


def test_spreads_are_those_of_the_paper() -> None:
    """Over many draws: the standard deviations of brightness, and of the logarithms of contrast, zoom and stretch."""
    n = 20_000
    numbers = uniform(n, ada.NUMBERS)
    flat = made()(torch.zeros(n, 1, 2, 2), torch.where(torch.arange(ada.NUMBERS) == 30, CLOSED, numbers), HALF)
    lit = flat[(numbers[:, 19] < 0.5) & (numbers[:, 21] >= 0.5), 0, 0, 0]
    assert lit.std().item() == pytest.approx(0.2, rel=0.03)
    numbers[:, [1, 3, 6, 10, 14, 17]] = CLOSED
    maps = ada._geometry(Draws(numbers, torch.tensor(0.9)), 8, 8, flip=False)
    x, y = maps[:, 0, 0].log2(), maps[:, 1, 1].log2()
    zoomed, stretched = numbers[:, 8] < 0.9, numbers[:, 12] < 0.9
    assert ((x + y) / 2)[zoomed].std().item() == pytest.approx(0.2, rel=0.03)
    assert ((x - y) / 2)[stretched].std().item() == pytest.approx(0.2, rel=0.03)
