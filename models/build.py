"""Fresh networks of a config, with the first weights that its seed stands for."""

from collections.abc import Callable

import torch
from torch import nn

from models.catalog import networks
from models.config import DataSpec, NetworkOptions
from models.layers import initialise
from models.randomness import Purpose


def build_generator(options: NetworkOptions, data: DataSpec, seed: int, device: torch.device) -> nn.Module:
    """From z [n, z_dim] and labels int64 [n] (or None) to images [n, C, H, W] in [-1, 1]."""
    family = networks(options.family)
    network = construct(lambda: family.Generator(options, data)).to(device)
    initialise(network, seed, Purpose.INIT_GENERATOR, family.INITIAL_STD)
    return network


def build_discriminator(options: NetworkOptions, data: DataSpec, seed: int, device: torch.device) -> nn.Module:
    """From images [n, C, H, W] in [-1, 1] and labels int64 [n] (or None) to logits [n]."""
    family = networks(options.family)
    network = construct(lambda: family.Discriminator(options, data)).to(device)
    initialise(network, seed, Purpose.INIT_DISCRIMINATOR, family.INITIAL_STD)
    return network


def construct(network: Callable[[], nn.Module]) -> nn.Module:
    """The network, without a trace of the random numbers that its layers draw when they are made."""
    with torch.random.fork_rng(devices=[]):
        return network()
