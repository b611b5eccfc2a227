"""What the machine gives: cores, and room on its disks."""

import errno
import os

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of an OSError: no space, no quota, no larger file


def available_cores() -> int:
    """CPU cores that the scheduler gives this process, which in a container may be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
