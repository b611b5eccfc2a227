"""Convolutional GAN after Radford, Metz, Chintala 2015 (arXiv:1511.06434), for any small base times a power of two.

The generator starts from a base of h0 x w0 pixels and doubles it stage by stage; the discriminator halves the image, stage by
stage, at least down to the same base. The base is the smallest that divides the image, because depth decides the quality: a
discriminator of three stages learns at 28 pixels what one of two never does.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from models.config import ConfigError, DataSpec, NetworkOptions
from models.families import FamilySpec

MAX_SIDE = 512
MAX_BASE = 9  # of the shorter side
MAX_ASPECT = 4
CHANNELS = (1, 3, 4)


class DcganOptions(NetworkOptions):
    family: Literal["dcgan"] = "dcgan"
    width: int = Field(
        32,
        ge=4,
        le=512,
        description="Channels of the discriminator's first of three stages or more; each doubles them.",
    )
    max_width: int = Field(256, ge=4, le=2048, description="Where the doubling ends.")


@dataclass(frozen=True)
class Layout:
    """Sizes of both networks: the generator's base and doublings, and the discriminator's halvings."""

    base_height: int
    base_width: int
    doublings: int
    halvings: int


def layout(height: int, width: int) -> Layout | None:
    """The layout for images of this size; None if there is none.

    Images of 16 pixels and more come down to a base of 4 or a little more, smaller ones to 2. An odd base is halved once more
    in the discriminator only.
    """
    shorter, longer = min(height, width), max(height, width)
    floor = 4 if shorter >= 16 else 2
    doublings = 0
    while height % 2 ** (doublings + 1) == 0 == width % 2 ** (doublings + 1) and shorter >> (doublings + 1) >= floor:
        doublings += 1
    if not doublings or shorter >> doublings > MAX_BASE or longer > min(MAX_SIDE, MAX_ASPECT * shorter):
        return None
    halvings = doublings + (shorter >> doublings > floor and shorter >> (doublings + 1) >= 2)
    return Layout(height >> doublings, width >> doublings, doublings, halvings)


def nearest_sizes(height: int, width: int, count: int = 2) -> list[tuple[int, int]]:
    """The sizes closest to this one that have a layout; squares for a square."""
    sides = range(4, MAX_SIDE + 1, 2)
    if height == width:
        candidates = [(side, side) for side in sides]
    else:
        candidates = [(h, w) for h in _near(sides, height) for w in _near(sides, width)]
    fitting = [size for size in candidates if layout(*size)]
    return sorted(fitting, key=lambda size: (abs(size[0] - height) + abs(size[1] - width), size))[:count]


def _near(sides: range, wanted: int) -> list[int]:
    return [side for side in sides if abs(side - wanted) <= max(8, wanted // 4)]


def check(_options: DcganOptions, data: DataSpec) -> None:
    faults = []
    if layout(data.height, data.width) is None:
        sizes = " or ".join(f"{height} x {width}" for height, width in sorted(nearest_sizes(data.height, data.width)))
        detail = (
            f"dcgan cannot make {data.height} x {data.width} images: it takes a small base (up to {MAX_BASE}) times a power"
            f" of two, sides up to {MAX_SIDE}, at most {MAX_ASPECT} : 1"
        )
        faults.append(("/network/family", f"{detail}; {sizes} would work" if sizes else detail))
    if data.channels not in CHANNELS:
        faults.append(("/network/family", f"dcgan takes 1, 3 or 4 channels, and these examples have {data.channels}"))
    if faults:
        raise ConfigError(faults)


SPEC = FamilySpec(
    name="dcgan",
    summary="Convolutional networks with batch normalisation; labels by conditional normalisation and projection.",
    options=DcganOptions,
    check=check,
)
