"""How many CPU cores this process may use."""

import os


def available_cores() -> int:
    """Those that the scheduler gives this process, which in a container may be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
