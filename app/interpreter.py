"""How Python itself runs in a process that makes samples on one thread, and answers or encodes on others."""

import gc
import sys
from functools import cache

# Between operations the generating thread needs the interpreter for microseconds, and the thread that answers may keep it for as
# long as this. Python's own 5 ms are as long as a whole forward.
SWITCH_SECONDS = 0.0005
# Containers made since the last collection of the young ones. Requests make many and leave no cycles; Python's own 700 are a few
# dozen requests.
YOUNG_OBJECTS = 20_000


def tune() -> None:
    """For a process that is ours alone."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS)


@cache
def keep_imported() -> None:
    """Spare the garbage collector what was imported until now, the first time that this is called; it stays for good anyway.

    PyTorch alone is some 200,000 objects: to look through them again and again would hold up all requests for more than a tenth
    of a second each time.
    """
    gc.freeze()
