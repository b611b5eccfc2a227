"""The shape that all examples of a data set get, chosen from what the headers of its images say.

Size. `resolution` is the side of a square. Without it: if all images have one size that convolutional networks can make (a small
base times a power of two, at most 256, at most 4 : 1), it is kept, square or not; else a square of the largest such side that
the median of the images' shorter sides reaches, from 8 to 256.

Channels. Four if every image has an alpha channel and at least half of them use it; else one if every pixel of every image is
gray, else three. Headers bound this from above, the pixels decide: `channels_to_decode` comes before and `channels_to_keep`
after decoding.
"""

from collections import Counter
from collections.abc import Callable

from models.families.layouts import layout
from worker.data.images import Channels, Fit, Target
from worker.data.members import DataError
from worker.data.rows import row_bytes

LARGEST_SIDE = 256
MOST_ENLARGED = 16  # times; digits of 8 x 8 are enlarged to 32
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
    reached = [side for side in SIDES if side <= _median(sizes, min)]
    side = reached[-1] if reached else SIDES[0]
    return Target(side, side, channels, fit)


def check_target(sizes: Counter[tuple[int, int]], target: Target, most_bytes: int) -> None:
    """Raises DataError `prepared_too_large`: small archives can be asked to become large, of flat or tiny images."""
    images = sizes.total()
    shape = f"{target.width} x {target.height}"
    if (needed := images * row_bytes(target)) > most_bytes:
        raise DataError(
            "prepared_too_large",
            f"{images} images of {shape} pixels and {target.channels} channels take {needed} bytes; at most {most_bytes}"
            " are allowed. Ask for a smaller resolution, or use fewer images.",
        )
    longer = _median(sizes, max)
    if max(target.width, target.height) > MOST_ENLARGED * longer:
        raise DataError(
            "prepared_too_large",
            f"half of the images are at most {longer} pixels long, and {shape} is more than {MOST_ENLARGED} times that:"
            f" they would take {needed} bytes, with nothing to see in them. Ask for a smaller resolution.",
        )


def is_makeable(width: int, height: int) -> bool:
    """Whether a convolutional network can make it, and within the time that people have."""
    return SIDES[0] <= min(width, height) and max(width, height) <= LARGEST_SIDE and layout(height, width) is not None


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


def _median(sizes: Counter[tuple[int, int]], side_of: Callable[[tuple[int, int]], int]) -> int:
    """The lower median of one side of each image."""
    sides: Counter[int] = Counter()
    for size, count in sizes.items():
        sides[side_of(size)] += count
    middle = (sides.total() + 1) // 2
    for side in sorted(sides):
        middle -= sides[side]
        if middle <= 0:
            break
    return side
