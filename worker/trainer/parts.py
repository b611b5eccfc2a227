"""How many examples of a batch are looked at together: fewer once memory runs out, where that leaves the mathematics as they are."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from models.memory import is_out_of_memory
from worker.trainer.failure import TrainingFailed

Result = TypeVar("Result")

MIXED = (
    "a batch of this family cannot be taken apart: its batch normalisation would no longer see all of it. Use a smaller batch_size,"
    " network or image size."
)
SHARED = (
    "processes that share a batch do not take it apart by themselves. Use a smaller micro_batch, network or image size."
)


class Parts:
    """`size` examples at a time. `whole` says why a batch may not be taken apart any further; None where it may."""

    def __init__(self, size: int, warn: Callable[[str, str], None], whole: str | None) -> None:
        self.size = size
        self._warn = warn
        self._whole = whole

    def attempt(self, network: nn.Module, phase: Callable[[int], Result]) -> Result:
        """What `phase(size)` returns, which adds up gradients of `network` and only then changes anything.

        It is tried again with half the size as long as memory runs out. Raises TrainingFailed once that cannot help.
        """
        while True:
            try:
                return phase(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._check_can_halve(error)
            network.zero_grad(set_to_none=True)
            self.size = -(-self.size // 2)
            self._warn(
                "micro_batch_halved",
                f"The device ran out of memory; from now on {self.size} examples of a batch are looked at together."
                " The gradients add up to the same.",
            )

    def _check_can_halve(self, error: Exception) -> None:
        if self._whole is not None:
            raise TrainingFailed("out_of_memory", f"The device ran out of memory, and {self._whole}") from error
        if self.size == 1:
            message = "The device ran out of memory with a single example; use a smaller network or image size."
            raise TrainingFailed("out_of_memory", message) from error
