"""The variational family: its two networks, its loss, and that they learn."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from models import catalog
from models.adam import Adam
from models.config import ConfigError, DataSpec
from models.elbo import SIGMA, negative_elbo
from models.families.vae.network import MAX_LOG_VARIANCE, Encoder, Generator
from models.families.vae.spec import SPEC, VaeOptions
from models.layers import initialise
from models.randomness import Purpose, normals

CLASSES = ("a", "b", "c")
SHAPES = [(8, 8, 1), (8, 16, 4), (28, 28, 1), (24, 20, 3), (32, 32, 3)]


def spec(height: int = 8, width: int = 8, channels: int = 1) -> DataSpec:
    return DataSpec(examples=10, height=height, width=width, channels=channels, classes=CLASSES)


def networks(data: DataSpec, *, conditional: bool = True, **more: Any) -> tuple[Generator, Encoder]:
    options = VaeOptions(**{"z_dim": 6, "width": 8} | more, conditional=conditional)
    G, D = Generator(options, data), Encoder(options, data)
    initialise(G, 0, Purpose.INIT_GENERATOR)
    initialise(D, 0, Purpose.INIT_DISCRIMINATOR)
    return G, D


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(n: int, data: DataSpec, seed: int = 0) -> Tensor:
    return torch.tanh(noise(n, data.channels, data.height, data.width, seed=seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("conditional", [True, False])
def test_networks_fit_the_data(shape: tuple[int, int, int], conditional: bool) -> None:
    """The encoder gives two moments for each latent, the decoder images of the data's shape within [-1, 1]."""
    data = spec(*shape)
    G, D = networks(data, conditional=conditional)
    labels = torch.tensor([0, 1, 2, 0, 1]) if conditional else None
    mean, log_variance = D(pictures(5, data), labels)
    assert mean.shape == log_variance.shape == (5, 6)
    images = G(mean, labels)
    assert images.shape == (5, shape[2], shape[0], shape[1])
    assert images.abs().max() <= 1


def test_a_hidden_class_has_a_row_of_its_own() -> None:
    """Where classes may be hidden, both networks take a label more."""
    G, D = networks(spec(), class_dropout=0.1)
    hidden = torch.tensor([3, 3])
    assert D(pictures(2, spec()), hidden)[0].shape == (2, 6)
    assert G(noise(2, 6), hidden).shape == (2, 1, 8, 8)


def test_labels_reach_both_networks() -> None:
    """Another label gives another image, and another mean and variance, from the same input."""
    G, D = networks(spec())
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    assert not torch.allclose(G(noise(4, 6), zeros), G(noise(4, 6), ones))
    for at_zeros, at_ones in zip(D(pictures(4, spec()), zeros), D(pictures(4, spec()), ones), strict=True):
        assert not torch.allclose(at_zeros, at_ones)


def test_the_spec_says_what_the_family_is() -> None:
    """It is found by name, plays the variational game and keeps the images of a batch apart."""
    assert catalog.FAMILIES["vae"] is SPEC
    assert (SPEC.game, SPEC.mixes_batch) == ("variational", False)


@pytest.mark.parametrize("change", [{"height": 11}, {"height": 100, "width": 100}, {"channels": 2}])
def test_sizes_that_cannot_be_made_are_refused(change: dict[str, int]) -> None:
    """A size without a layout, or a number of channels that no picture has, is a fault of the family."""
    with pytest.raises(ConfigError, match="vae") as caught:
        SPEC.check(VaeOptions(), spec().model_copy(update=change))
    assert [pointer for pointer, _ in caught.value.errors] == ["/network/family"]


@pytest.mark.parametrize("beta", [-0.1, math.inf, "much"])
def test_beta_has_bounds(beta: Any) -> None:
    """A weight of the divergence that makes no sense is pointed at."""
    document = {"network": {"family": "vae", "beta": beta}, "loss": "non_saturating", "budget": {"examples": 1}}
    with pytest.raises(ConfigError) as caught:
        catalog.parse_config(document)
    assert [pointer for pointer, _ in caught.value.errors] == ["/network/beta"]


def test_images_do_not_mix() -> None:
    """What comes out for an image is the same in any company, in training mode too."""
    data = spec(28, 28)
    G, D = networks(data)
    images, labels = pictures(6, data), torch.tensor([0, 1, 2, 0, 1, 2])
    mean, log_variance = D(images, labels)
    alone = D(images[2:3], labels[2:3])
    torch.testing.assert_close(alone[0], mean[2:3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alone[1], log_variance[2:3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(G(mean[2:3], labels[2:3]), G(mean, labels)[2:3], atol=1e-6, rtol=1e-5)


def test_log_variances_stay_within_bounds() -> None:
    """However far the last layer goes, the variance is a number to work with, and there is still a gradient to come back by."""
    _, D = networks(spec())
    with torch.no_grad():
        D.moments.bias.fill_(40.0)
    _, log_variance = D(pictures(3, spec()), torch.tensor([0, 1, 2]))
    assert (log_variance > 9.9).all()
    assert (log_variance <= MAX_LOG_VARIANCE).all()
    log_variance.sum().backward()
    assert (D.moments.bias.grad[6:] > 0).all()


def test_first_latents_are_close_to_the_prior() -> None:
    """Before it has learned anything, the encoder answers with nearly the prior, and the decoder with nearly gray."""
    data = spec(32, 32, 3)
    G, D = networks(data, z_dim=32, width=32)
    labels = torch.arange(16) % 3
    mean, log_variance = D(pictures(16, data), labels)
    assert mean.square().mean() < 0.1
    assert log_variance.square().mean() < 0.1
    assert 0.01 < G(noise(16, 32), labels).std() < 0.5


def test_divergence_is_the_closed_form() -> None:
    """The KL term is torch's own divergence of the two distributions, the mean over the batch."""
    mean, log_variance = noise(7, 5), noise(7, 5, seed=1)
    posterior = Independent(Normal(mean, torch.exp(log_variance / 2)), 1)
    prior = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    images = pictures(7, spec())
    kl = negative_elbo(images, images, mean, log_variance, 1.0).kl
    torch.testing.assert_close(kl, kl_divergence(posterior, prior).mean())
    assert negative_elbo(images, images, torch.zeros(7, 5), torch.zeros(7, 5), 1.0).kl == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_is_a_gaussian_likelihood(shape: tuple[int, int, int]) -> None:
    """The reconstruction term is minus the log density of the image under N(decoded image, SIGMA^2), mean over the batch."""
    data = spec(*shape)
    images, decoded = pictures(4, data), pictures(4, data, seed=1)
    found = negative_elbo(images, decoded, noise(4, 2), noise(4, 2), 1.0).reconstruction
    likelihood = Independent(Normal(decoded, torch.full_like(decoded, SIGMA)), 3)
    torch.testing.assert_close(found, -likelihood.log_prob(images).mean())


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weighs_the_divergence(beta: float) -> None:
    """The loss is the reconstruction term and beta times the divergence."""
    loss, reconstruction, kl = negative_elbo(
        pictures(4, spec()), pictures(4, spec(), seed=1), noise(4, 3), noise(4, 3, seed=1), beta
    )
    torch.testing.assert_close(loss, reconstruction + beta * kl)


def test_parts_of_a_batch_add_up() -> None:
    """The loss of a batch is the mean of those of its halves, so that it may be worked off in parts."""
    images, decoded, mean, log_variance = pictures(8, spec()), pictures(8, spec(), 1), noise(8, 3), noise(8, 3, seed=1)
    whole = negative_elbo(images, decoded, mean, log_variance, 1.0).loss
    halves = [
        negative_elbo(images[part], decoded[part], mean[part], log_variance[part], 1.0).loss
        for part in (slice(4), slice(4, 8))
    ]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_the_loss_is_in_full_precision() -> None:
    """Sums over thousands of pixels are float32, whatever the networks worked in."""
    low = [tensor.bfloat16() for tensor in (pictures(4, spec()), noise(4, 3), noise(4, 3, seed=1))]
    found = negative_elbo(pictures(4, spec(), seed=1), *low, 1.0)
    assert {term.dtype for term in found} == {torch.float32}


def step(G: Generator, D: Encoder, images: Tensor, labels: Tensor | None, first: int) -> None:
    """Both networks' gradients of the loss of one batch, as training computes them."""
    mean, log_variance = D(images, labels)
    epsilon = torch.from_numpy(normals(0, np.arange(first, first + len(images)), Purpose.ENCODING, mean.shape[1]))
    decoded = G(mean + torch.exp(log_variance / 2) * epsilon, labels)
    negative_elbo(images, decoded, mean, log_variance, 1.0).loss.backward()


def test_every_parameter_of_both_gets_a_gradient() -> None:
    """Nothing in either network is dead weight; the classes of a batch, and no others, learn from it."""
    G, D = networks(spec())
    step(G, D, pictures(4, spec()), torch.tensor([0, 0, 2, 2]), 0)
    for network in (G, D):
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
        for layer in network.modules():
            if isinstance(layer, nn.Embedding):
                assert (layer.weight.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True]


def bars(n: int) -> Tensor:
    """Images [n, 1, 8, 8] of one bright column of any of the eight, on a dark ground with a little noise."""
    images = torch.full((n, 1, 8, 8), -0.8)
    images[torch.arange(n), 0, :, torch.arange(n) % 8] = 0.8
    return images + 0.05 * noise(n, 1, 8, 8)


def test_it_learns() -> None:
    """Some hundred steps: reconstructions beat the mean image by far, and the prior's samples have the data's mean, bars that are bright."""
    data, images = spec(), bars(512)
    G, D = networks(data, conditional=False, z_dim=4, width=4)
    optimizers = [Adam(network, beta1=0.9) for network in (G, D)]
    for first in range(0, 400 * 32, 32):
        step(G, D, images[torch.arange(first, first + 32) % 512], None, first)
        for optimizer in optimizers:
            optimizer.step(lr=4e-3, beta2=0.999)
    with torch.no_grad():
        decoded, samples = G(D(images)[0]), G(noise(2048, 4))
    assert (decoded - images).square().mean() < 0.2 * (images - images.mean(dim=0)).square().mean()
    assert (samples.mean(dim=0) - images.mean(dim=0)).abs().max() < 0.25
    assert samples.amax(dim=(1, 2, 3)).median() > 0.4  # and are no mean images themselves


def test_the_decoder_can_be_exported() -> None:
    """torch.export takes it as it is for any number of samples, and the program says the same as the network."""
    G, _ = networks(spec(28, 28))
    G.eval()
    z, labels = noise(4, 6), torch.tensor([0, 1, 2, 0])
    many = torch.export.Dim("n")
    program = torch.export.export(G, (z, labels), dynamic_shapes=({0: many}, {0: many}))
    torch.testing.assert_close(program.module()(z[:3], labels[:3]), G(z[:3], labels[:3]))


def test_layouts_and_precisions_of_memory_agree() -> None:
    """Channels last and bf16 autocast give the same image, up to rounding."""
    G, D = networks(spec(28, 28))
    images, labels = pictures(4, spec(28, 28)), torch.tensor([0, 1, 2, 0])
    mean = D(images, labels)[0]
    decoded = G(mean, labels)
    last = torch.channels_last
    torch.testing.assert_close(
        D.to(memory_format=last)(images.to(memory_format=last), labels)[0], mean, atol=1e-5, rtol=1e-4
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert (G.to(memory_format=last)(mean, labels).float() - decoded).abs().max() < 0.05
