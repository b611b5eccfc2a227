"""The probe, in a process whose first step never ends: `python -m tests.worker.stuck_probe FOLDER --stop-fd N`."""

import sys

from models.adam import Adam
from tests.worker.stuck_trainer import never_ending
from worker.probe import __main__ as probe

if __name__ == "__main__":
    Adam.step = never_ending  # type: ignore[method-assign, assignment]
    sys.exit(probe.main())
