"""The trainer, on a machine with so many bytes to spare and no more: `python -m tests.worker.starved_trainer RUN_DIR BYTES`."""

import sys

from models import memory
from worker.trainer import __main__ as trainer

if __name__ == "__main__":
    memory.spare_memory = lambda: int(sys.argv[2])
    memory.LEAST = 0
    sys.exit(trainer.main([sys.argv[1]]))
