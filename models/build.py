"""Fresh networks of a config, with the first weights that its seed stands for."""

from collections.abc import Callable
from typing import TypeVar

import torch

from models.catalog import FAMILIES, networks
from models.config import DataSpec, NetworkOptions
from models.layers import Network, initialise
from models.randomness import Purpose

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def build_generator(options: NetworkOptions, data: DataSpec, seed: int, device: torch.device) -> Network:
    """From z [n, z_dim] and labels int64 [n] (or None) to images [n, C, H, W] in [-1, 1]."""
    network: Network = construct(lambda: networks(options.family).Generator(options, data)).to(device)
    initialise(network, seed, Purpose.INIT_GENERATOR)
    return network


def build_discriminator(options: NetworkOptions, data: DataSpec, seed: int, device: torch.device) -> Network:
    """From images [n, C, H, W] in [-1, 1] and rows int64 [n] of its table of classes (or None) to logits [n].

    Of a variational family its encoder: to the mean and the logarithm of the variance of z, each [n, z_dim].
    """
    family = networks(options.family)
    network_type = family.Discriminator if FAMILIES[options.family].game == "adversarial" else family.Encoder
    network: Network = construct(lambda: network_type(options, data)).to(device)
    initialise(network, seed, Purpose.INIT_DISCRIMINATOR)
    return network


def construct(network: Callable[[], AnyNetwork]) -> AnyNetwork:
    """The network, without a trace of the random numbers that its layers draw when they are made."""
    with torch.random.fork_rng(devices=[]):
        return network()
