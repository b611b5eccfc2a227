"""One child process: stopped through an inherited pipe, followed through the file that it appends to, killed with all it started.

The child reads a pipe whose write end this process alone holds, so it learns of a stop and of our death in the same way: the
pipe closes. Both ends are close-on-exec (Python's default) and only the read end is handed on, so children that are started at
the same moment by other threads cannot keep each other's pipes open. Children live in sessions of their own: Ctrl-C in a
terminal does not reach them, and a kill reaches everything that they started.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger()

PROJECT = Path(__file__).resolve().parents[1]
LOG_TAIL_BYTES = 4096
# Of 1000: when memory runs out the kernel ends a child, whose work resumes, and not the API or Redis.
OUT_OF_MEMORY_SCORE = "500"

# Children parse untrusted input and need none of our secrets: only what Python, torch and the system libraries read goes on.
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "VIRTUAL_ENV", "LD_", "SSL_CERT", "XDG_"),
    *("CUDA", "CUBLAS_", "NVIDIA", "NCCL", "TORCH", "PYTORCH", "ATEN_", "OMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_"),
)


class Child:
    """`python -m MODULE DIRECTORY --stop-fd N`, whose output goes to DIRECTORY/trainer.log for `worker.trainer`.

    Use it as a context manager: on the way out whatever is left of it is killed and reaped.
    """

    def __init__(
        self, module: str, directory: Path, *, environment: Mapping[str, str], keep_open: Sequence[int] = ()
    ) -> None:
        """Start it. `keep_open` are file descriptors that it inherits and holds until it ends, such as a lock's."""
        self._log = directory / f"{module.rpartition('.')[2]}.log"
        self._lock = threading.Lock()
        self._reaped = False
        read_end, self._write_end = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own module in our own directory
                    [sys.executable, "-m", module, str(directory), "--stop-fd", str(read_end)],
                    cwd=PROJECT,
                    env={**inherited_environment(), **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(read_end, *keep_open),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        with suppress(OSError):  # it has ended already, or this is not Linux
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        with self._lock:
            self._process.wait()
            self._reaped = True
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def limit(self, limits: Mapping[int, int]) -> None:
        """Set resource limits, `{resource.RLIMIT_CPU: seconds, ...}`. From outside: code between fork and exec may deadlock."""
        for kind, value in limits.items():
            with suppress(ProcessLookupError):  # it has ended already
                resource.prlimit(self.pid, kind, (value, value))

    def status(self) -> int | None:
        """The exit status, -N after signal N, None while it runs. Does not reap it: its process id stays ours until exit."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.status() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """Ask it to stop at its next step and to leave a checkpoint. May be called any number of times."""
        with self._lock:
            if self._write_end >= 0:
                os.close(self._write_end)
                self._write_end = -1

    def kill(self) -> None:
        """Kill it and everything in its session's first process group, at once. Safe from any thread."""
        with self._lock:
            if not self._reaped:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def log_tail(self) -> str:
        """The last few lines that it printed."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()


class Lines:
    """The JSON lines that another process appends to a file, each once it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """The complete lines that were added since the last call, without those that a full disk cut off."""
        try:
            if self._path.stat().st_size == self._offset:
                return []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                complete, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(complete) + len(newline)
        return list(_parsed(complete.splitlines()))


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError as error:
            log.warning("lines.torn", length=len(line), error=str(error))


def inherited_environment() -> dict[str, str]:
    """The part of our environment that a child is given."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def thread_environment(threads: int) -> dict[str, str]:
    """What keeps the numeric libraries to so many threads: on few cores two busy trainers slow each other down many times over."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
