"""The trainer, in a process that comes to its tenth step only when it was asked to stop: `python -m tests.worker.held_trainer RUN_DIR`."""

import itertools
import sys
import time

from worker.stop import StopSignal
from worker.trainer import __main__ as trainer

HELD_BEFORE_STEP = 10


class Held(StopSignal):
    """Asked before the tenth step, it answers once the answer is yes."""

    def __init__(self, fd: int | None = None) -> None:
        super().__init__(fd)
        self._steps = itertools.count(1)

    def __call__(self) -> bool:
        if next(self._steps) == HELD_BEFORE_STEP:
            while not super().__call__():
                time.sleep(0.01)
        return super().__call__()


if __name__ == "__main__":
    trainer.StopSignal = Held  # type: ignore[misc]
    sys.exit(trainer.main())
