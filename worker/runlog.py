"""The line-by-line account that a child process leaves in its run directory: `events.jsonl`, append-only.

A file rather than a pipe, because a file neither stalls its writer when nobody reads nor loses what was written when it dies.
"""

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any


class RunLog:
    """Appends one JSON object a line: {"kind", "examples_seen", "elapsed_seconds", "data"}.

    `elapsed_seconds` counts from construction on top of `elapsed_before`, the seconds that earlier runs already spent.
    """

    def __init__(self, path: Path, elapsed_before: float = 0.0) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._started = time.monotonic() - elapsed_before
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"  # by a run that was killed in mid-line

    @property
    def elapsed_seconds(self) -> float:
        """Seconds spent so far, those of earlier runs included."""
        return time.monotonic() - self._started

    def count_from(self, elapsed_before: float) -> None:
        """Take up the clock of an earlier run: from now on `elapsed_seconds` continues from `elapsed_before`."""
        self._started = time.monotonic() - elapsed_before

    def write(self, kind: str, examples_seen: int = 0, **data: Any) -> None:
        """Append one event; the whole line goes to the kernel in one write. Numbers that are not finite become null.

        Raises OSError, ENOSPC also when the disk took only part of the line: that part swallows nothing of the next.
        """
        event = {
            "kind": kind,
            "examples_seen": examples_seen,
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "data": _finite(data),
        }
        line = b"\n" * self._torn + json.dumps(event, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        self._torn = os.write(self._fd, line) < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._fd)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
