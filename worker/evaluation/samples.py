"""How an evaluation gets what it judges."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# The samples number first .. first + n - 1 of a fixed stream, uint8 [n, H, W, C], and int64 [n] the classes they were asked for.
Draw = Callable[[int, int], tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]]
