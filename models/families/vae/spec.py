"""Convolutional variational autoencoder after Kingma and Welling 2013 (arXiv:1312.6114), for the sizes of the convolutional GANs.

It is here to compare with: the same data, budget, sampling and evaluation, and another way to learn. Its loss falls steadily and has
no game in it that could be lost, so it shows what the data give away without any tuning; its samples are blurred, because the
decoder answers with the mean of all the images that a latent may stand for.
"""

from typing import Literal

from pydantic import Field

from models.config import DataSpec, NetworkOptions
from models.families import FamilySpec
from models.families.layouts import check_layout


class VaeOptions(NetworkOptions):
    family: Literal["vae"] = "vae"
    z_dim: int = Field(16, ge=1, le=4096, description="Length of the latent vector z.")
    width: int = Field(
        32,
        ge=4,
        le=512,
        description="Channels of the encoder's first of three stages or more; each doubles them.",
    )
    max_width: int = Field(256, ge=4, le=2048, description="Where the doubling ends.")
    beta: float = Field(
        1.0,
        ge=0,
        le=1_000,
        description="Weight of the divergence of the latents from the prior (beta-VAE): 1 is the bound on the likelihood itself.",
    )


def check(_options: VaeOptions, data: DataSpec) -> None:
    check_layout("vae", data)


SPEC = FamilySpec(
    name="vae",
    summary="A convolutional variational autoencoder, to compare the GANs with: it trains steadily, and its samples are blurred.",
    options=VaeOptions,
    check=check,
    game="variational",
)
