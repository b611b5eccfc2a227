"""The sizes that convolutional families make: a small base times a power of two.

A generator starts from a base of h0 x w0 pixels and doubles it stage by stage; a discriminator halves the image, at least down to
the same base. The base is the smallest that divides the image, because depth decides the quality: a discriminator of three stages
learns at 28 pixels what one of two never does.
"""

from dataclasses import dataclass

from models.config import ConfigError, DataSpec

MAX_SIDE = 512
MAX_BASE = 9  # of the shorter side
MAX_ASPECT = 4
CHANNELS = (1, 3, 4)


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
    in a discriminator only, by a family that can.
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


def layout_of(data: DataSpec) -> Layout:
    """The layout for this data, which `check_layout` let through."""
    plan = layout(data.height, data.width)
    assert plan is not None, "the family's check refuses sizes without a layout"
    return plan


def stage_widths(plan: Layout, width: int, max_width: int) -> list[int]:
    """Channels of a discriminator's or an encoder's stages, from the image inwards: `width`, doubled at each stage up to `max_width`.

    Small images have few stages, and make up for it in width.
    """
    start = width << max(0, 3 - plan.halvings)
    return [min(start << stage, max_width) for stage in range(plan.halvings)]


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


def check_layout(family: str, data: DataSpec) -> None:
    """Raises ConfigError for images without a layout, naming sizes that have one, and for other channels than 1, 3 and 4."""
    faults = []
    if layout(data.height, data.width) is None:
        sizes = " or ".join(f"{height} x {width}" for height, width in sorted(nearest_sizes(data.height, data.width)))
        detail = (
            f"{family} cannot make {data.height} x {data.width} images: it takes a small base (up to {MAX_BASE}) times a power"
            f" of two, sides up to {MAX_SIDE}, at most {MAX_ASPECT} : 1"
        )
        faults.append(("/network/family", f"{detail}; {sizes} would work" if sizes else detail))
    if data.channels not in CHANNELS:
        faults.append(
            ("/network/family", f"{family} takes 1, 3 or 4 channels, and these examples have {data.channels}")
        )
    if faults:
        raise ConfigError(faults)
