"""How a child process learns that it should stop: SIGTERM, SIGINT, or the end of a pipe that its parent holds open.

The pipe ends with the parent, however the parent dies, so a child that asks between its steps never outlives it.
"""

import os
import select
import signal
from types import FrameType


class StopSignal:
    """A callable that turns true, for good, once this process was asked to stop.

    Construct it in the main thread: it takes over SIGTERM and SIGINT. `fd`, if given, is the read end of an inherited pipe.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._asked = False
        self._fd = fd
        self._poll = select.poll()
        if fd is not None:
            self._poll.register(fd, select.POLLIN | select.POLLHUP)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Whether to stop; costs one system call that never waits."""
        if not self._asked and self._fd is not None and self._poll.poll(0):
            self._asked = os.read(self._fd, 4096) == b""  # bytes mean nothing; only the end does
        return self._asked

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
