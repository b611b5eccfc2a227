"""The trainer, in a process that kills itself (SIGKILL) at a point of its work: `python -m tests.worker.dying_trainer RUN_DIR POINT`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.adam import Adam
from worker.runlog import RunLog
from worker.trainer import __main__ as trainer
from worker.trainer import checkpoint


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def between_the_two_steps() -> None:
    """In the middle of step 16: D has moved and G has not."""
    calls = iter(range(10**9))
    step = Adam.step

    def dying(self: Adam, **settings: float) -> None:
        step(self, **settings)
        if next(calls) == 30:
            die()

    Adam.step = dying  # type: ignore[method-assign]


def _while_writing(name: str) -> None:
    """With half of the third checkpoint's file on disk."""
    seen = iter(range(10**9))
    write = checkpoint._write

    def dying(path: Path, content: bytes | memoryview) -> None:
        if path.name == name and next(seen) == 2:
            path.write_bytes(bytes(content[: len(content) // 2]))
            die()
        write(path, content)

    checkpoint._write = dying


def while_writing_the_state() -> None:
    _while_writing("state.pt")


def while_writing_the_manifest() -> None:
    _while_writing("model.json")


def before_the_rename() -> None:
    """With the third checkpoint whole on disk, under its temporary name."""
    _around_the_rename(lambda _rename: die)


def after_the_rename() -> None:
    """With the third checkpoint in place, and its line not yet in the log."""

    def then_die(rename: Callable[[], Any]) -> Callable[[], None]:
        def both() -> None:
            rename()
            die()

        return both

    _around_the_rename(then_die)


def _around_the_rename(instead: Callable[[Callable[[], Any]], Callable[[], None]]) -> None:
    seen = iter(range(10**9))
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if "checkpoints" in target.parts and next(seen) == 2:
            instead(lambda: rename(self, target))()
        return rename(self, target)

    Path.rename = dying  # type: ignore[method-assign, assignment]


def in_the_middle_of_a_line() -> None:
    """With half of a metrics line in the log."""
    seen = iter(range(10**9))
    write = RunLog.write

    def dying(self: RunLog, kind: str, examples_seen: int = 0, **data: Any) -> None:
        if kind == "metrics" and next(seen) == 3:
            os.write(self._fd, b'{"kind": "metr')
            die()
        write(self, kind, examples_seen, **data)

    RunLog.write = dying  # type: ignore[method-assign]


POINTS = {
    point.__name__: point
    for point in (
        between_the_two_steps,
        while_writing_the_state,
        while_writing_the_manifest,
        before_the_rename,
        after_the_rename,
        in_the_middle_of_a_line,
    )
}

if __name__ == "__main__":
    POINTS[sys.argv[2]]()
    sys.exit(trainer.main([sys.argv[1]]))
