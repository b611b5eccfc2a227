"""What the machine gives: cores, memory, and room on its disks."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of an OSError: no space, no quota, no larger file

# Where the two versions of control groups say what a group may have, what it has, and which of that are cached files.
GROUPS_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", ("active_file", "inactive_file"))
GROUPS_V1 = (
    *("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("total_active_file", "total_inactive_file"),
)


def available_cores() -> int:
    """CPU cores that the scheduler gives this process, which in a container may be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spare_memory(root: Path = Path("/")) -> int | None:
    """Bytes that Linux could give to this process now, within the limits of its container; None on another system.

    What is cached of files counts as spare, swap does not. `root` is where `proc` and `sys` are.
    """
    try:
        available = figures(root / "proc/meminfo")["MemAvailable"] * 1024
    except (OSError, KeyError):
        return None
    return max(0, min([available, *_spare_in_groups(root)]))


def figures(path: Path) -> dict[str, int]:
    """What a file of the kernel says as lines of a name and a whole number. Raises OSError."""
    lines = (line.replace(":", " ").split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _spare_in_groups(root: Path) -> Iterator[int]:
    """Of each control group around this process that limits memory. A container sees its own as the outermost."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        place, most, used, cached = GROUPS_V1 if controllers else GROUPS_V2
        outermost = root / place
        innermost = outermost / path.lstrip("/")
        for group in (innermost, *innermost.parents):
            if group.is_relative_to(outermost):
                yield from _spare_in_group(group, most, used, cached)


def _spare_in_group(group: Path, most: str, used: str, cached: tuple[str, ...]) -> Iterator[int]:
    """Nothing where the group sets no limit, or is not to be seen from here."""
    try:
        limit = (group / most).read_text(encoding="ascii").strip()
        has = int((group / used).read_text(encoding="ascii"))
        kinds = figures(group / "memory.stat")
    except OSError:
        return
    if limit != "max":
        yield int(limit) - has + sum(kinds.get(kind, 0) for kind in cached)
