"""What was found out about a picture."""

from pydantic import Field

from app.provenance import Statement
from app.schemas.base import View


class Inspection(View):
    """Where a picture says that it comes from, and whether the same comes from there now."""

    provenance: Statement | None = Field(description="What it says of itself; null when it says nothing.")
    found: bool = Field(description="Whether the version that it names is here, with the weights that it names.")
    reproduced: bool | None = Field(
        description="Whether the same picture is made now: pixel for pixel, and for JPEG, AVIF and WebP with a quality as both are "
        "decoded. null when it cannot be made again; `reason` says why."
    )
    differing_pixels: int | None = Field(None, description="How many differ, where both have the same size.")
    max_difference: int | None = Field(None, description="The largest difference in one channel, 0 to 255.")
    reason: str = Field(description="In a sentence, for people.")
