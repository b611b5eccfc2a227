"""The r3gan family: its sizes, its first weights, and what its discriminator's gradient needs."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import interpolate

from models import catalog
from models.build import build_discriminator, build_generator, construct
from models.config import ConfigError, DataSpec
from models.families.r3gan.network import Block, Discriminator, Down, Generator, Up
from models.families.r3gan.spec import R3ganOptions, check
from models.layers import Network

CPU = torch.device("cpu")
SMALL = R3ganOptions(width=16, min_width=16, z_dim=6, conditional=True)


def data(height: int = 8, width: int = 8, channels: int = 1, classes: int = 3) -> DataSpec:
    return DataSpec(examples=9, height=height, width=width, channels=channels, classes=tuple(map(str, range(classes))))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def alive(network: Network) -> Network:
    """The network with last convolutions that are not zero, as after some training."""
    for name, parameter in network.named_parameters():
        if name.endswith("contract.weight"):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    return network


@pytest.mark.parametrize("conditional", [True, False])
def test_the_articles_networks_have_the_articles_size(conditional: bool) -> None:
    """Width 768, four stages of two blocks: 20.8 million parameters in G and 21.3 million in D for CIFAR-10."""
    options = R3ganOptions(width=768, wide_stages=4, blocks=2, conditional=conditional)
    cifar = data(32, 32, 3, classes=10)
    networks = [construct(lambda net=net: net(options, cifar)) for net in (Generator, Discriminator)]
    G, D = (sum(weight.numel() for weight in network.parameters()) for network in networks)
    block = 2 * 768 * 1536 + 9 * 16 * 1536 + 2 * 1536
    both = 8 * block + 16 * 768 + 3 * 768  # blocks, basis, and the layer at the image
    assert both + (10 * 64 + (64 + 64) * 768 if conditional else 64 * 768) == G
    assert both + (10 * 768 + 768 * 768 if conditional else 768) == D
    assert [round(number / 1e6, 1) for number in (G, D)] == ([20.8, 21.3] if conditional else [20.7, 20.7])


@pytest.mark.parametrize(
    ("options", "size", "widths"),
    [
        ({"width": 768, "wide_stages": 4}, (256, 256), [768, 768, 768, 768, 384, 192, 96]),
        ({}, (32, 32), [256, 256, 128, 64]),
        ({"width": 128, "min_width": 64}, (64, 32), [128, 128, 64, 64]),
        ({"width": 48, "wide_stages": 1, "min_width": 16}, (28, 28), [48, 16, 16]),
        ({"width": 16, "min_width": 64}, (8, 8), [16, 16, 16]),
    ],
)
def test_stages_narrow_towards_the_image(options: dict, size: tuple[int, int], widths: list[int]) -> None:
    """So many stages keep the full width; from there on each has half of the last, in multiples of 16, down to the least."""
    assert R3ganOptions(**options).widths(data(*size)) == widths


@pytest.mark.parametrize("group_size", [16, 32, None])
@pytest.mark.parametrize("size", [(28, 28), (32, 16), (8, 24)])
def test_every_kind_of_block_makes_images_of_the_datas_size(size: tuple[int, int], group_size: int | None) -> None:
    """G comes out in the data's size and D in one logit for each image, from a 7 x 7 base and from one that is not square."""
    options = SMALL.model_copy(update={"group_size": group_size, "blocks": 2, "width": 32})
    G, D = (build(options, data(*size), 0, CPU) for build in (build_generator, build_discriminator))
    labels = torch.tensor([0, 2])
    images = G(normal(2, 6), labels)
    assert images.shape == (2, 1, *size)
    assert D(images, labels).shape == (2,)


def test_every_block_starts_as_the_identity() -> None:
    """The last convolution of each block is zero at first."""
    D = build_discriminator(SMALL, data(32, 32), 0, CPU)
    blocks = [module for module in D.modules() if isinstance(module, Block)]
    assert len(blocks) == 4
    x = normal(2, 16, 5, 5)
    assert all(torch.equal(block(x), x) for block in blocks)


def test_first_weights_shrink_with_the_number_of_blocks() -> None:
    """N(0, gain / sqrt(fan_in)) with sqrt(2 / 1.04) L^(-1/4) inside the L blocks; other gains are 1, biases 0, the basis N(0, 1)."""
    options = R3ganOptions(width=128, wide_stages=4, blocks=2, conditional=True)
    G, D = (build(options, data(32, 32, 3, classes=100), 0, CPU) for build in (build_generator, build_discriminator))
    inside = math.sqrt(2 / (1 + 0.2**2)) * 8**-0.25
    assert inside == pytest.approx(0.8246, abs=1e-4)
    for block in (module for module in G.modules() if isinstance(module, Block)):
        assert block.expand.weight.std().item() == pytest.approx(inside / math.sqrt(128), rel=0.03)
        assert block.mix.weight.std().item() == pytest.approx(inside / math.sqrt(16 * 9), rel=0.03)
        assert not any(block.get_parameter(f"{name}.bias").any() for name in ("expand", "mix"))
    assert G.basis.std().item() == pytest.approx(1, rel=0.05)
    assert G.gains.weight.std().item() == pytest.approx(1 / math.sqrt(64 + 64), rel=0.03)
    assert G.embedding.weight.std().item() == pytest.approx(1 / math.sqrt(100), rel=0.03)
    assert D.basis.std().item() == pytest.approx(1 / 4, rel=0.05)
    assert D.head.weight.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.03)
    assert D.embedding.weight.std().item() == pytest.approx(1 / math.sqrt(100 * 128), rel=0.03)


def test_first_images_and_logits_have_a_sensible_size() -> None:
    """Without any normalisation the signal neither dies nor explodes on its way through deep, fresh networks."""
    options = R3ganOptions(width=32, wide_stages=4, blocks=4, conditional=False)
    G, D = (build(options, data(32, 32, 3), 0, CPU) for build in (build_generator, build_discriminator))
    assert 0.3 < G(normal(16, 64), None).std().item() < 3
    smooth = normal(16, 3, 1, 1).expand(16, 3, 32, 32)  # halving averages the noise of pixels away
    assert 0.1 < D(smooth, None).std().item() < 10


def test_up_is_bilinear_interpolation() -> None:
    """Doubling agrees with torch's, borders included, and is the same for images that are not square."""
    x = normal(2, 3, 4, 6)
    torch.testing.assert_close(Up((3, 3), 4, 6)(x), interpolate(x, scale_factor=2, mode="bilinear"))


def test_down_filters_as_it_halves() -> None:
    """Inside the image it weighs [1, 3, 3, 1] / 8 each way, as torch's antialiased halving does; a flat image stays flat."""
    x = normal(2, 3, 8, 12)
    halved, reference = Down((3, 3), 8, 12)(x), interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
    torch.testing.assert_close(halved[..., 1:-1, 1:-1], reference[..., 1:-1, 1:-1])
    torch.testing.assert_close(Down((3, 3), 8, 12)(torch.ones(1, 3, 8, 12)), torch.ones(1, 3, 4, 6))


@pytest.mark.parametrize("group_size", [16, None])
def test_the_gradients_norm_can_be_differentiated(group_size: int | None) -> None:
    """Penalties on D's gradient have right derivatives by the images and by every weight, in float64 against differences."""
    options = SMALL.model_copy(update={"group_size": group_size})
    D = alive(build_discriminator(options, data(4, 4), 0, CPU)).double()
    labels = torch.tensor([0, 2])
    names = [name for name, _ in D.named_parameters() if name.startswith(("layers", "basis", "head"))]

    def norm(x: Tensor, *weights: Tensor) -> Tensor:
        call = torch.func.functional_call(D, dict(zip(names, weights, strict=True)), (x, labels))
        (gradient,) = torch.autograd.grad(call.sum(), x, create_graph=True)
        return gradient.square().sum()

    images = normal(2, 1, 4, 4).double().requires_grad_()
    weights = [D.get_parameter(name).detach().requires_grad_() for name in names]
    assert gradcheck(norm, (images, *weights), fast_mode=True)


@pytest.mark.parametrize("conditional", [True, False])
def test_images_do_not_mix(conditional: bool) -> None:
    """What G makes of a z and D of an image is the same alone and among others, so that penalties are those of each image."""
    options = SMALL.model_copy(update={"conditional": conditional})
    G, D = (alive(build(options, data(28, 28), 0, CPU)) for build in (build_generator, build_discriminator))
    z, labels = normal(5, 6), torch.tensor([0, 1, 2, 0, 1]) if conditional else None
    images = G(z, labels)
    logits = D(images, labels)
    for i in range(5):
        label = labels[i : i + 1] if conditional else None
        torch.testing.assert_close(G(z[i : i + 1], label), images[i : i + 1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(D(images[i : i + 1], label), logits[i : i + 1], rtol=1e-5, atol=1e-6)
    assert not catalog.FAMILIES["r3gan"].mixes_batch


def test_logits_keep_float32_under_bf16() -> None:
    """All stages run in bf16 and the images come out in it, while logits are summed up in float32, so that they can be subtracted."""
    G, D = (alive(build(SMALL, data(16, 16), 0, CPU)) for build in (build_generator, build_discriminator))
    labels = torch.tensor([0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = G(normal(2, 6), labels)
        logits = D(images, labels)
    assert images.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, D(images.float(), labels), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("change", [{"height": 11}, {"channels": 2}, {"height": 64, "width": 8}])
def test_what_cannot_be_made_is_refused(change: dict) -> None:
    """A size without a small base, an odd number of channels and a strip are ConfigErrors that say r3gan."""
    with pytest.raises(ConfigError, match="r3gan") as caught:
        check(SMALL, data().model_copy(update=change))
    assert [pointer for pointer, _ in caught.value.errors] == ["/network/family"]


def test_refusal_names_sizes_that_work() -> None:
    """The nearest sizes are in the message."""
    with pytest.raises(ConfigError, match="96 x 96 or 112 x 112 would work"):
        check(SMALL, data(100, 100))


@pytest.mark.parametrize(
    "change", [{"width": 40}, {"blocks": 5}, {"group_size": 8}, {"min_width": 0}, {"wide_stages": 0}]
)
def test_options_have_bounds(change: dict) -> None:
    """Widths that do not divide into groups and numbers out of range are refused."""
    with pytest.raises(ValueError, match=next(iter(change))):
        R3ganOptions(**change)
