"""Convolutional GAN after Radford, Metz, Chintala 2015 (arXiv:1511.06434), for any small base times a power of two.

The generator doubles the base stage by stage; the discriminator halves the image to the same base, and an odd base once more.
"""

from typing import Literal

from pydantic import Field

from models.config import DataSpec, NetworkOptions
from models.families import FamilySpec
from models.families.layouts import check_layout


class DcganOptions(NetworkOptions):
    family: Literal["dcgan"] = "dcgan"
    width: int = Field(
        32,
        ge=4,
        le=512,
        description="Channels of the discriminator's first of three stages or more; each doubles them.",
    )
    max_width: int = Field(256, ge=4, le=2048, description="Where the doubling ends.")


def check(_options: DcganOptions, data: DataSpec) -> None:
    check_layout("dcgan", data)


SPEC = FamilySpec(
    name="dcgan",
    summary="Convolutional networks with batch normalisation; labels by conditional normalisation and projection.",
    options=DcganOptions,
    check=check,
    mixes_batch=True,
)
