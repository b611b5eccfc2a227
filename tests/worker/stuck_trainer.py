"""The trainer, in a process whose first step never ends: `python -m tests.worker.stuck_trainer RUN_DIR --stop-fd N`."""

import sys
import time

from models.adam import Adam
from worker.trainer import __main__ as trainer


def never_ending(_self: Adam, **_settings: float) -> None:
    time.sleep(3600)


if __name__ == "__main__":
    Adam.step = never_ending  # type: ignore[method-assign, assignment]
    sys.exit(trainer.main())
