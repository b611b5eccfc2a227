"""What every augmentation promises, whatever its transforms are."""

import pytest
import torch
from torch import Tensor

from models import penalties
from models.augment import Augmentation, make_augmentation
from models.augment.draws import Draws
from models.config import Augment
from tests.models.augmenting import HALF, pictures, uniform

AUGMENTS = [
    Augment(kind="diffaugment"),
    Augment(kind="diffaugment", policy=("cutout",)),
    Augment(kind="ada"),
    Augment(kind="ada", flip=True),
]
SHAPES = [(1, 8, 8), (3, 8, 8), (4, 8, 8), (2, 6, 9), (3, 5, 12), (1, 1, 1)]
ALWAYS, NEVER = torch.tensor(1.0), torch.tensor(0.0)


def made(augment: Augment) -> Augmentation:
    augmentation = make_augmentation(augment)
    assert augmentation is not None
    return augmentation


@pytest.fixture(params=AUGMENTS, ids=lambda augment: f"{augment.kind}-{'-'.join(augment.policy)}-{augment.flip}")
def augmentation(request: pytest.FixtureRequest) -> Augmentation:
    return made(request.param)


def test_none_is_no_augmentation() -> None:
    """Kind "none" gives nothing to call."""
    assert make_augmentation(Augment()) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_and_values_are_numbers(augmentation: Augmentation, shape: tuple[int, int, int]) -> None:
    """Grey, RGB, alpha, non-square, a single pixel: images come back in their shape, changed, and finite."""
    images = pictures(16, *shape)
    result = augmentation(images, uniform(16, augmentation.numbers), ALWAYS)
    assert result.shape == images.shape
    assert result.isfinite().all()
    assert not torch.equal(result, images)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_nothing_changes_at_probability_zero(
    augmentation: Augmentation, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Every bit of every image is as it was, and so is its gradient."""
    images = pictures(16, *shape, dtype=dtype).requires_grad_()
    result = augmentation(images, uniform(16, augmentation.numbers), NEVER)
    assert result.dtype == dtype
    assert torch.equal(result, images)
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


def test_an_images_result_depends_on_its_own_numbers_alone(augmentation: Augmentation) -> None:
    """In another batch, or at another place in it, an image comes out the same."""
    images, numbers = pictures(12, 3, 8, 8), uniform(12, augmentation.numbers)
    together = augmentation(images, numbers, HALF)
    order = torch.arange(11, -1, -1)
    torch.testing.assert_close(augmentation(images[order], numbers[order], HALF)[order], together)
    alone = [augmentation(images[i : i + 1], numbers[i : i + 1], HALF) for i in range(12)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_the_same_numbers_give_the_same_result(augmentation: Augmentation) -> None:
    """Nothing is drawn but what is given: two calls agree to the bit, and torch's own generator stays where it was."""
    images, numbers = pictures(12, 3, 8, 8), uniform(12, augmentation.numbers)
    state = torch.get_rng_state()
    assert torch.equal(augmentation(images, numbers, HALF), augmentation(images, numbers, HALF))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augmentation(images, 1 - numbers, HALF), augmentation(images, numbers, HALF))


def test_it_takes_as_many_numbers_as_it_says(augmentation: Augmentation) -> None:
    """With one number fewer for each image it cannot go on; with one more, that one is left."""
    images = pictures(2, 3, 8, 8)
    with pytest.raises(StopIteration):
        augmentation(images, uniform(2, augmentation.numbers - 1), HALF)
    draws = Draws(uniform(2, augmentation.numbers + 1), HALF)
    augmentation.transform(images, draws)
    draws.gate()
    with pytest.raises(StopIteration):
        draws.gate()


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 2, 3), (4, 3, 2)])
def test_it_can_be_differentiated_twice(augmentation: Augmentation, shape: tuple[int, int, int]) -> None:
    """First and second derivatives are those that one measures, with every transform applied."""
    images = pictures(2, *shape, dtype=torch.float64).requires_grad_()
    numbers = uniform(2, augmentation.numbers)

    def transform(x: Tensor) -> Tensor:
        return augmentation(x, numbers, ALWAYS)

    assert torch.autograd.gradcheck(transform, (images,))
    assert torch.autograd.gradgradcheck(transform, (images,))


def test_the_gradient_norm_goes_through_it(augmentation: Augmentation) -> None:
    """Where D sees augmented images, the norm is of the gradient by the plain ones, and trains D's weights rightly."""
    images, numbers = pictures(3, 1, 4, 4, dtype=torch.float64), uniform(3, augmentation.numbers)
    weight = pictures(1, 1, 4, 4, dtype=torch.float64)[0].requires_grad_()

    def penalty(w: Tensor) -> Tensor:
        return penalties.gradient_norm2(
            lambda x: (augmentation(x, numbers, HALF) * w).tanh().sum(dim=(1, 2, 3)), images
        )

    assert torch.autograd.gradcheck(penalty, (weight,))


def test_bf16_images_are_transformed_in_fp32(augmentation: Augmentation) -> None:
    """The result is that of the fp32 images, rounded, and autocast makes no difference to either."""
    images, numbers = pictures(12, 3, 8, 8, dtype=torch.bfloat16), uniform(12, augmentation.numbers)
    wide = augmentation(images.float(), numbers, HALF)
    assert torch.equal(augmentation(images, numbers, HALF), wide.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmentation(images.float(), numbers, HALF), wide)


def test_layout_in_memory_makes_no_difference(augmentation: Augmentation) -> None:
    """Channels last or first: the same values."""
    images, numbers = pictures(12, 3, 8, 10), uniform(12, augmentation.numbers)
    laid_out = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(augmentation(laid_out, numbers, HALF), augmentation(images, numbers, HALF))


def test_nothing_is_read_on_the_host(augmentation: Augmentation) -> None:
    """It works on tensors that have a shape and no values, which it could not if a value decided what to do."""
    images, numbers = pictures(4, 3, 8, 8).to("meta"), uniform(4, augmentation.numbers).to("meta")
    assert augmentation.transform(images, Draws(numbers, HALF.to("meta"))).shape == images.shape


def test_the_edges_of_the_unit_interval_give_finite_draws() -> None:
    """Numbers that float32 has rounded to 0 or 1 are taken as the nearest inside, and probabilities 0 and 1 mean never and always."""
    edges = torch.tensor([[0.0], [1.0]])
    assert Draws(edges, HALF).normal(1).abs().max() < 6
    assert Draws(edges, HALF).integer(-2, 2).tolist() == [-2, 2]
    assert not Draws(edges, NEVER).gate().any()
    assert Draws(edges, ALWAYS).gate().all()
