"""The trainer, in a process that as rank 1 has no memory left for its fourth step: `python -m tests.worker.trainer.failing_rank RUN_DIR`."""

import os
import sys
from typing import Any

import torch

from worker.trainer import __main__ as trainer
from worker.trainer.adversarial import Adversarial

FAILS_IN_STEP = 4

if __name__ == "__main__":
    step, steps = Adversarial.step, iter(range(1, 10**9))

    def hungry(self: Adversarial, *arguments: Any) -> None:
        if next(steps) == FAILS_IN_STEP and os.environ["RANK"] == "1":
            torch.empty(2**50)
        step(self, *arguments)

    Adversarial.step = hungry  # type: ignore[method-assign, assignment]
    sys.exit(trainer.main())
