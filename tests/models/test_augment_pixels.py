"""Sampling against plain references."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.augment import pixels
from tests.models.augmenting import pictures, sampled

Sampler = Callable[[Tensor, Tensor, Tensor], Tensor]
SAMPLERS = [pixels.bilinear, pixels._bilinear_by_grid, pixels._bilinear_by_pixels]


def places(n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """y and x float64 [n, height, width] all over the image and several times its size around it."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.rand(2, n, height, width, dtype=torch.float64, generator=generator).unbind()
    return (5 * y - 2) * height, (5 * x - 2) * width


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 7), (4, 5, 1), (2, 1, 1)])
def test_bilinear_weighs_the_four_pixels_around(sample: Sampler, shape: tuple[int, int, int]) -> None:
    """Both ways to sample give what a loop over pixels gives, with the image mirrored at its edges."""
    images = pictures(2, *shape, dtype=torch.float64)
    y, x = places(2, *shape[1:])
    result = sample(images, y, x)
    for i in range(2):
        expected = sampled(
            images[i].numpy(),
            lambda column, row, i=i: (x[i, int(row), int(column)].item(), y[i, int(row), int(column)].item()),
        )
        np.testing.assert_allclose(result[i].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("sample", SAMPLERS)
def test_sampling_can_be_differentiated_twice(sample: Sampler) -> None:
    """Both ways: first and second derivatives are those that one measures."""
    images = pictures(2, 2, 3, 4, dtype=torch.float64).requires_grad_()
    y, x = places(2, 3, 4)
    assert torch.autograd.gradcheck(lambda image: sample(image, y, x), (images,))
    assert torch.autograd.gradgradcheck(lambda image: sample(image, y, x), (images,))


def test_both_ways_to_sample_have_the_same_gradient() -> None:
    """The adjoint of one is that of the other, in float32 as well."""
    images = pictures(4, 3, 8, 6).requires_grad_()
    y, x = (place.float() for place in places(4, 8, 6))
    direction = pictures(4, 3, 8, 6)
    by_grid, by_pixels = (
        torch.autograd.grad((sample(images, y, x) * direction).sum(), images)[0] for sample in SAMPLERS[1:]
    )
    torch.testing.assert_close(by_grid, by_pixels, atol=1e-4, rtol=1e-4)


def test_shift_moves_whole_pixels_and_fills_with_zeros() -> None:
    """Down and to the right where positive; beyond the image there is nothing."""
    images = torch.arange(1.0, 7.0).view(1, 1, 2, 3).expand(4, 1, 2, 3)
    moved = pixels.shift(images, torch.tensor([1.0, -1.0, 0.0, 5.0]), torch.tensor([0.0, 2.0, -1.0, 0.0]))
    assert moved[:, 0].tolist() == [
        [[0, 0, 0], [1, 2, 3]],
        [[0, 0, 4], [0, 0, 0]],
        [[2, 3, 0], [5, 6, 0]],
        [[0, 0, 0], [0, 0, 0]],
    ]


def test_cutout_makes_a_hole_of_half_the_size_where_it_is_told() -> None:
    """In every channel, cut off at the image's edges, and only in the images it applies to."""
    images = torch.ones(3, 4, 8, 6)
    y, x = torch.tensor([0.5, 0.0, 0.5]), torch.tensor([0.5, 1.0, 0.5])
    result = pixels.cutout(images, y, x, torch.tensor([True, True, False]))
    expected = images.clone()
    expected[0, :, 2:6, 2:4] = 0  # the middles of columns 1 and 4 lie on the edge of the hole, and stay
    expected[1, :, :2, 5:] = 0
    assert torch.equal(result, expected)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)])
def test_an_alpha_channel_is_no_colour(channels: int, expected: int) -> None:
    """The last of two or four channels is alpha."""
    assert pixels.colours(torch.zeros(1, channels, 2, 2)) == expected
