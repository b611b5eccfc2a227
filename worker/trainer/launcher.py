"""Starts the processes that train a run as one: `python -m worker.trainer.launcher RUN_DIR [--stop-fd N]`.

As many as its config's `processes`, each a trainer that is told its place through the environment. They stay in this process's
group, inherit whatever descriptors it was handed, and read a pipe whose write end it alone holds: asked to stop, or killed, it
lets go of the pipe, and each of them finishes its step and ends. Nothing heavy is imported here.
"""

import argparse
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from models import catalog
from models.config import ConfigError
from models.machine import available_cores
from worker.runlog import RunLog
from worker.slots import find_gpus
from worker.stop import StopSignal

TRAINER = (sys.executable, "-m", "worker.trainer")
MEETING = (
    "GANVIL_MEETING"  # the file through which they find one another: a port could be taken by somebody else meanwhile
)
FAREWELL_SECONDS = 5.0  # what the others have to say why they end, too, once one of them has failed
POLL_SECONDS = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.trainer.launcher", description="Train in several processes."
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--stop-fd", type=int, help="stop when the pipe at this file descriptor ends")
    options = parser.parse_args(arguments)
    should_stop = StopSignal(options.stop_fd)
    if not options.run_dir.is_dir():
        parser.error(f"{options.run_dir} is not a directory")
    return launch(options.run_dir, _processes(options.run_dir), should_stop)


def _processes(run_dir: Path) -> int:
    """How many the run asks for. One that cannot be read gets a single one, which says what is wrong."""
    try:
        return catalog.parse_config(json.loads((run_dir / "run.json").read_bytes())["config"]).processes
    except (OSError, ValueError, LookupError, TypeError, ConfigError):
        return 1


class Place(NamedTuple):
    """Of a process among those of its run. `meeting` is the file through which they find one another; None under torchrun."""

    rank: int
    world: int
    on_this_machine: int
    meeting: str | None


def place() -> Place | None:
    """Of this process, as this launcher and torchrun tell it; None where neither did."""
    told = os.environ
    if "RANK" not in told or "WORLD_SIZE" not in told:
        return None
    world = int(told["WORLD_SIZE"])
    return Place(int(told["RANK"]), world, int(told.get("LOCAL_WORLD_SIZE", world)), told.get(MEETING))


def log_path(run_dir: Path, rank: int) -> Path:
    """Where a rank gives its account: the first one's is the run's, the others' hold little but what they failed of."""
    return run_dir / (f"events.{rank}.jsonl" if rank else "events.jsonl")


def check_places(processes: int) -> None:
    """Raises ConfigError for more processes than the machine has GPUs or cores for."""
    places = max(available_cores(), len(find_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))))
    if processes > places:
        detail = f"{processes} processes need a GPU or a core each, and there are {places}; use at most {places}"
        raise ConfigError([("/processes", detail)])


def launch(run_dir: Path, processes: int, should_stop: Callable[[], bool], program: Sequence[str] = TRAINER) -> int:
    """Start so many of the program, and see them to their end. Returns the exit status.

    Once one has failed the others are ended, and the run's log says what it failed of. If it was ended by a signal, so is this
    process: it does not return. More than the machine has places for are not started.
    """
    try:
        check_places(processes)
    except ConfigError as error:
        message = f"This config cannot be trained: {error}"
        RunLog(log_path(run_dir, 0)).write("failed", code="config", message=message)
        return 1
    logs = [log_path(run_dir, rank) for rank in range(processes)]
    sizes = [log.stat().st_size if log.exists() else 0 for log in logs]
    meeting = run_dir.resolve() / "meeting"
    meeting.unlink(missing_ok=True)
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    ranks: list[subprocess.Popen[bytes]] = []
    with os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb") as held:
        try:
            for rank in range(processes):
                command = [*program, str(run_dir), "--stop-fd", str(read_end)]
                environment = os.environ | _place_of(rank, processes) | {MEETING: str(meeting)}
                ranks.append(subprocess.Popen(command, env=environment, close_fds=False))  # noqa: S603 - our own module
            status = _follow(ranks, should_stop, held.close)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
            meeting.unlink(missing_ok=True)
    if status:
        _say_why(logs, sizes)
    if status < 0:
        _end_by(-status)
    return status


def _place_of(rank: int, processes: int) -> dict[str, str]:
    """What torch, gloo and NCCL read. They talk through the loopback interface: nobody else on the network can reach them."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {
        **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes)),
        **dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), loopback),
    }


def _follow(ranks: list[subprocess.Popen[bytes]], should_stop: Callable[[], bool], stop: Callable[[], None]) -> int:
    """Wait until all have ended, or one has failed and the others had their time. How the first failed: 0 where none did."""
    failure, deadline = 0, math.inf
    while True:
        statuses = [process.poll() for process in ranks]
        if not failure and (failure := min(filter(None, statuses), default=0)):  # a signal, below 0, says more
            deadline = time.monotonic() + FAREWELL_SECONDS
        if None not in statuses or time.monotonic() >= deadline:
            return failure
        if should_stop():
            stop()
        time.sleep(POLL_SECONDS)


def _say_why(logs: list[Path], sizes: list[int]) -> None:
    """Write into the run's log what a rank failed of, unless it says so already."""
    failures = [_failure(log, size) for log, size in zip(logs, sizes, strict=True)]
    reason = next(filter(None, failures), None)
    if reason is not None and failures[0] is None:
        log = RunLog(logs[0], elapsed_before=reason["elapsed_seconds"])
        log.write("failed", reason["examples_seen"], **reason["data"])
        log.close()


def _failure(log: Path, size: int) -> dict[str, Any] | None:
    """The last line since the log had that size, if it says of what the run failed."""
    try:
        with log.open("rb") as file:
            file.seek(size)
            event: dict[str, Any] = json.loads(file.read().rstrip().rpartition(b"\n")[2])
    except (FileNotFoundError, ValueError):
        return None
    return event if event["kind"] == "failed" else None


def _end_by(number: int) -> None:
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main())
