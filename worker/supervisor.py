"""One child under a lease, from its start to its ending: what it wrote goes out, a wish to stop goes in.

Nothing here knows what the child does. `worker.training` and `worker.preparation` say what to start, what to do with the lines
that it writes and what each ending means for its row.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import structlog
from sqlalchemy.orm import Session

from app.errors import LeaseLost, StorageFull, Unavailable
from app.settings import Settings
from worker.child import Child, Lines
from worker.faults import without_folders
from worker.lease import Lease

log = structlog.get_logger()

Line = dict[str, Any]
Release = Callable[[Session, str, int, str], None]  # ..., reason
Fail = Callable[[Session, str, int, str, str], None]  # ..., code, message

LAST_LINES = ("finished", "stopped", "failed")
OVERDUE = "overdue"
POLL_SECONDS = 0.1
# Starting takes seconds and fetching data may take longer than a slice: a turn that ends before it has brought anything would
# let two jobs give way to one another for ever. Counted from the child's first line.
SHORTEST_TURN_SECONDS = 1.0


class Ending(NamedTuple):
    """How a child ended: finished, stopped, failed (it said why), or crashed (it said nothing). `code` and `message` say why.

    One that had begun and did not stop within the grace was killed: stopped, with the code OVERDUE.
    """

    kind: str
    code: str = ""
    message: str = ""
    printed: str = ""  # the end of what it printed


class Supervision:
    """Follows a child until it has ended and all that it wrote is shipped.

    The child is asked to stop when the lease says so, and killed when that takes longer than the settings' grace.
    """

    def __init__(
        self, child: Child, lines: Lines, lease: Lease, ship: Callable[[list[Line]], None], settings: Settings
    ) -> None:
        self._child = child
        self._lines = lines
        self._lease = lease
        self._ship = ship
        self._settings = settings
        self._last: Line = {}
        self._asked = self._killed = False
        self._may_yield_at = self._kill_at = math.inf

    def run(self) -> Ending:
        """Raises LeaseLost, with the child killed, when the claim is lost, and whatever shipping raises."""
        self._lease.on_loss(self._child.kill)
        while True:
            status = self._child.status()  # before the read: whatever it wrote before it ended is read
            self._forward()
            if status is not None:
                return self._ending(status)
            self._steer()
            time.sleep(POLL_SECONDS)

    def _forward(self) -> None:
        written = self._lines.read()
        self._lease.check()
        if written:
            turn = min(self._settings.time_slice_seconds, SHORTEST_TURN_SECONDS)
            self._may_yield_at = min(self._may_yield_at, time.monotonic() + turn)
            self._ship(written)
            self._last = written[-1]

    def _steer(self) -> None:
        reason, time_now = self._lease.stop_reason, time.monotonic()
        if reason and not self._asked and (reason != "yield" or time_now >= self._may_yield_at):
            log.info("child.asked_to_stop", row=self._lease.row_id, reason=reason)
            self._child.stop()
            self._asked = True
        if self._asked or self._last.get("kind") in LAST_LINES:
            self._kill_at = min(self._kill_at, time_now + self._settings.stop_grace_seconds)
        if time_now >= self._kill_at:
            self._killed = True
            self._child.kill()

    def _ending(self, status: int) -> Ending:
        kind = self._last.get("kind")
        if kind == "failed":
            return Ending("failed", self._last["data"]["code"], self._last["data"]["message"])
        if kind in LAST_LINES:
            return Ending(kind)
        by_another = status == -signal.SIGKILL and not self._killed
        if self._asked and not by_another:
            return self._overdue() if self._killed and self._last else Ending("stopped")
        printed = self._child.log_tail()
        if by_another:
            message = "The process was killed; most likely the machine ran out of memory."
            return Ending("crashed", "oom_suspected", message, printed)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        last_words = without_folders(printed.rpartition("\n")[2]) or "without a word"
        # oneDNN, for one, does not look whether it got the memory for its code.
        hint = ". Libraries may end so when memory runs out" if status == -signal.SIGSEGV else ""
        return Ending("crashed", "crashed", f"The process {how}: {last_words}{hint}", printed)

    def _overdue(self) -> Ending:
        grace = self._settings.stop_grace_seconds
        return Ending("stopped", OVERDUE, f"The process did not stop within {grace:g} seconds.")


@contextmanager
def recorded(lease: Lease, *, release: Release, fail: Fail, crashed: Fail) -> Iterator[None]:
    """Write into the row what ends the block early; the row's module says how: `release`, `fail` or `crashed`.

    A lost lease is nothing to record: the row belongs to somebody else.
    """
    try:
        try:
            yield
        except StorageFull as error:
            lease.write(fail, error.code, error.detail)
        except Unavailable as error:  # of `Lease.patiently`: the work should stop while what it needs is away
            lease.write(release, error.code)
        except LeaseLost:
            raise
        except Exception as error:
            log.exception("run.failed", row=lease.row_id, fence=lease.fence)
            lease.write(crashed, "internal", f"{type(error).__name__}: {without_folders(str(error))}")
            raise
    except LeaseLost as error:
        log.warning("lease.lost", row=lease.row_id, fence=lease.fence, error=error.detail)
