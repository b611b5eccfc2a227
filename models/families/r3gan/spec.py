"""The modern baseline of Huang, Gokaslan, Kuleshov, Tompkin 2024 (arXiv:2501.05441), for any small base times a power of two.

Residual networks without normalisation, of one width near the base and of ever fewer channels towards the image. They are meant
for the relativistic loss with R1 and R2, and for a generator and a discriminator that learn equally fast.
"""

from typing import Literal

from pydantic import Field

from models.config import DataSpec, NetworkOptions
from models.families import FamilySpec
from models.families.layouts import check_layout, layout_of

STEP = 16  # widths are multiples of it, so that groups come out even


class R3ganOptions(NetworkOptions):
    """The article's networks for 32 x 32 images have width 768, wide_stages 4 and blocks 2."""

    family: Literal["r3gan"] = "r3gan"
    width: int = Field(
        256, ge=STEP, le=2048, multiple_of=STEP, description="Channels of the widest stages, at the base."
    )
    wide_stages: int = Field(
        2,
        ge=1,
        le=9,
        description="Stages of full width, from the base outwards; each further one has half of the last.",
    )
    min_width: int = Field(32, ge=STEP, le=2048, multiple_of=STEP, description="Where the halving ends.")
    blocks: int = Field(1, ge=1, le=4, description="Residual blocks in each stage.")
    group_size: Literal[16, 32] | None = Field(
        16, description="Channels that each 3 x 3 convolution mixes; null: all, with a quarter of the channels."
    )

    def widths(self, data: DataSpec) -> list[int]:
        """Channels of each stage, from the base to the image."""
        narrowings = (max(0, stage + 1 - self.wide_stages) for stage in range(layout_of(data).doublings + 1))
        least = min(self.min_width, self.width)
        return [max(least, (self.width >> times) // STEP * STEP) for times in narrowings]


def check(_options: R3ganOptions, data: DataSpec) -> None:
    check_layout("r3gan", data)


SPEC = FamilySpec(
    name="r3gan",
    summary="Residual networks without normalisation, for the relativistic loss with R1 and R2; labels by embedding and projection.",
    options=R3ganOptions,
    check=check,
)
