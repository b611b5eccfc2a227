"""Every family's networks: shapes, ranges, conditioning, first weights."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import catalog
from models.build import build_discriminator, build_generator
from models.config import DataSpec, NetworkOptions
from models.layers import ConditionalBatchNorm

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")
SHAPES = [(8, 8, 1), (8, 16, 4), (28, 28, 1), (24, 20, 3)]
ADVERSARIAL = [name for name, family in catalog.FAMILIES.items() if family.game == "adversarial"]
UNBOUNDED = {"r3gan"}  # what its generator makes is only meant for [-1, 1]


def data(height: int = 8, width: int = 8, channels: int = 1, classes: tuple[str, ...] = CLASSES) -> DataSpec:
    return DataSpec(examples=10, height=height, width=width, channels=channels, classes=classes)


def options(family: str, *, conditional: bool, **more: Any) -> NetworkOptions:
    return catalog.parse_network({"family": family, "z_dim": 6, "conditional": conditional, **more})


def z(n: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("conditional", [True, False])
def test_networks_fit_the_data(family: str, shape: tuple[int, int, int], conditional: bool) -> None:
    """G makes images of the data's shape within [-1, 1], square or not, of 1, 3 or 4 channels; D one logit for each.

    An encoder in D's place finds two moments of each latent.
    """
    height, width, channels = shape
    chosen, spec = options(family, conditional=conditional), data(height, width, channels)
    labels = torch.tensor([0, 1, 2, 0, 1]) if conditional else None
    images = build_generator(chosen, spec, 0, CPU)(z(5), labels)
    assert images.shape == (5, channels, height, width)
    assert family in UNBOUNDED or images.abs().max() <= 1
    judged = build_discriminator(chosen, spec, 0, CPU)(images, labels)
    if family in ADVERSARIAL:
        assert judged.shape == (5,)
    else:
        assert [moment.shape for moment in judged] == [(5, 6), (5, 6)]


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_a_hidden_class_is_a_class_of_its_own(family: str) -> None:
    """Where classes may be hidden, one more label than the data has is accepted, and makes a difference in both networks."""
    spec = data()
    chosen = options(family, conditional=True, class_dropout=0.25)
    G, D = build_generator(chosen, spec, 0, CPU).eval(), build_discriminator(chosen, spec, 0, CPU)
    known, hidden = torch.zeros(4, dtype=torch.int64), torch.full((4,), len(CLASSES))
    images = G(z(4), known)
    assert not torch.equal(images, G(z(4), hidden))
    assert not all(map(torch.equal, tensors(D(images, known)), tensors(D(images, hidden))))


def tensors(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A discriminator's logits, or an encoder's moments."""
    return (output,) if isinstance(output, Tensor) else output


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_families_say_whether_images_depend_on_each_other(family: str) -> None:
    """An output depends on the rest of its batch while training just where the family says so."""
    chosen, spec = options(family, conditional=False), data(16, 16, 3)
    D = build_discriminator(chosen, spec, 0, CPU)
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together, apart = tensors(D(x))[0][:3], tensors(D(x[:3]))[0]
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-5) is not catalog.FAMILIES[family].mixes_batch


def test_mlp_has_the_articles_layers() -> None:
    """Ten hidden layers in the generator and six in the discriminator, of the article's widths."""
    chosen, spec = options("mlp", conditional=False), data(28, 28)
    generator = [layer.out_features for layer in linear(build_generator(chosen, spec, 0, CPU))]
    discriminator = [layer.out_features for layer in linear(build_discriminator(chosen, spec, 0, CPU))]
    assert generator == [128, 256, 512, 1024, 1024, 512, 256, 128, 64, 32, 784]
    assert discriminator == [1024, 512, 256, 128, 64, 32, 1]


def linear(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize(("size", "generator", "discriminator"), [(32, 3, 3), (28, 2, 3), (64, 4, 4), (8, 2, 2)])
def test_dcgan_has_as_many_stages_as_its_layout(size: int, generator: int, discriminator: int) -> None:
    """The discriminator is at least as deep as the generator."""
    chosen, spec = options("dcgan", conditional=False, width=4), data(size, size)
    assert len(build_generator(chosen, spec, 0, CPU).stages) == generator
    assert len(build_discriminator(chosen, spec, 0, CPU).stages) == discriminator


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_labels_reach_both_networks(family: str) -> None:
    """Another label gives another image and another logit, or other moments, from the same input."""
    chosen, spec = options(family, conditional=True), data()
    G, D = build_generator(chosen, spec, 0, CPU).eval(), build_discriminator(chosen, spec, 0, CPU)
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    images = G(z(4), zeros)
    assert not torch.equal(images, G(z(4), ones))
    assert not all(map(torch.equal, tensors(D(images, zeros)), tensors(D(images, ones))))


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_every_parameter_gets_a_gradient(family: str) -> None:
    """Nothing in either network is dead weight; the classes of a batch, and no others, learn from it."""
    chosen, spec = options(family, conditional=True), data()
    G, D = build_generator(chosen, spec, 0, CPU), build_discriminator(chosen, spec, 0, CPU)
    judged = D(G(z(4), torch.tensor([0, 0, 2, 2])), torch.tensor([0, 0, 2, 2]))
    sum(tensor.square().sum() for tensor in tensors(judged)).backward()
    for network in (G, D):
        assert all(parameter.grad is not None for parameter in network.parameters())
        for layer in network.modules():
            if isinstance(layer, nn.Embedding):
                assert (layer.weight.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True]


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_evaluation_changes_nothing(family: str) -> None:
    """A generator in evaluation mode leaves its weights and running statistics as they are."""
    G = build_generator(options(family, conditional=True), data(), 0, CPU).eval()
    before = copy.deepcopy(G.state_dict())
    G(z(4), torch.tensor([0, 1, 2, 0]))
    assert all(torch.equal(before[name], tensor) for name, tensor in G.state_dict().items())


@pytest.mark.parametrize("family", list(catalog.FAMILIES))
def test_first_weights_are_a_function_of_the_seed(family: str) -> None:
    """The same seed gives the same weights, another one others, and torch's generator stays where it was."""
    before = torch.get_rng_state()
    chosen, spec = options(family, conditional=True), data()
    one, same, other = (build_generator(chosen, spec, seed, CPU).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_first_weights_of_dcgan_are_those_of_its_paper() -> None:
    """N(0, 0.02) weights, gains of one, biases of zero."""
    D = build_discriminator(options("dcgan", conditional=False, width=64), data(32, 32, 3), 0, CPU)
    assert D.stages[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(D.stages[2].weight.mean().item()) < 1e-4
    assert D.norms[0].weight.eq(1).all()
    assert D.norms[0].bias.eq(0).all()


def test_signal_survives_the_depth_of_the_mlp() -> None:
    """He's first weights keep the article's deep generator from starting out with one gray image."""
    images = build_generator(options("mlp", conditional=False), data(28, 28), 0, CPU)(z(16))
    assert images.std(dim=0).mean() > 0.05


def test_conditional_batch_norm_scales_by_class() -> None:
    """Each image is normalised over the batch, then scaled and moved by its own class's gain and bias."""
    layer = ConditionalBatchNorm(2, 2)
    with torch.no_grad():
        layer.gain.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        layer.bias.weight.copy_(torch.tensor([[0.0, 5.0], [6.0, 7.0]]))
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1, 0])
    normal = (x - x.mean(dim=(0, 2, 3), keepdim=True)) / (
        x.var(dim=(0, 2, 3), keepdim=True, correction=0) + 1e-5
    ).sqrt()
    expected = normal * (1 + layer.gain.weight[labels])[:, :, None, None] + layer.bias.weight[labels][:, :, None, None]
    torch.testing.assert_close(layer(x, labels), expected)
