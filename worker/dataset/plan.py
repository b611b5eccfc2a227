"""The shape that all examples of a data set get, chosen from what the headers of its images say.

Size. `resolution` is the side of a square. Without it: if all images have one size that convolutional networks can make (a small
base times a power of two, at most 256, at most 4 : 1), it is kept, square or not; else a square of the largest such side that
the median of the images' shorter sides reaches, from 8 to 256.

Channels. Four if every image has an alpha channel and at least half of them use it; else one if every pixel of every image is
gray, else three. Headers bound this from above, the pixels decide: `channels_to_decode` comes before and `channels_to_keep`
after decoding.
"""

from collections import Counter
from typing import Literal

from worker.dataset.images import Fit, Target

Channels = Literal[1, 3, 4]
LARGEST_SIDE = 256
LARGEST_BASE = 7
LARGEST_ASPECT = 4
SIDES = sorted(
    {base << doublings for base in (4, 5, 6, 7) for doublings in range(1, 7) if base << doublings <= LARGEST_SIDE}
)


def choose_target(sizes: Counter[tuple[int, int]], channels: Channels, fit: Fit, resolution: int | None) -> Target:
    """`sizes` counts the (width, height) of the images."""
    if resolution is not None:
        return Target(resolution, resolution, channels, fit)
    if len(sizes) == 1:
        ((width, height),) = sizes
        if is_makeable(width, height):
            return Target(height, width, channels, fit)
    reached = [side for side in SIDES if side <= _median_side(sizes)]
    side = reached[-1] if reached else SIDES[0]
    return Target(side, side, channels, fit)


def is_makeable(width: int, height: int) -> bool:
    """Whether a network can get there by doubling a small base."""
    shorter, longer = min(width, height), max(width, height)
    if shorter < SIDES[0] or longer > min(LARGEST_SIDE, LARGEST_ASPECT * shorter):
        return False
    power = (width | height) & -(width | height)  # the largest power of two that divides both
    return power > 1 and shorter // power <= LARGEST_BASE


def channels_to_decode(images: int, with_alpha: int, with_colour: int) -> Channels:
    """The most channels that the pixels can turn out to need."""
    if with_alpha == images:
        return 4
    return 3 if with_colour else 1


def channels_to_keep(images: int, decoded: Channels, *, transparent: int, coloured: bool) -> Channels:
    """What they do need: `transparent` images use their alpha; `coloured` says that some pixel is not gray."""
    if decoded == 4 and 2 * transparent >= images:
        return 4
    return 3 if coloured else 1


def _median_side(sizes: Counter[tuple[int, int]]) -> int:
    """The lower median of the shorter sides."""
    shorter: Counter[int] = Counter()
    for size, count in sizes.items():
        shorter[min(size)] += count
    middle = (shorter.total() + 1) // 2
    for side in sorted(shorter):
        middle -= shorter[side]
        if middle <= 0:
            break
    return side
