"""The command line of preparation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.machine import available_cores
from worker.data.members import DataError
from worker.data.prepare import prepare
from worker.data.progress import Progress, Stopped
from worker.runlog import RunLog
from worker.stop import StopSignal


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.data", description="Prepare a data set for training.")
    parser.add_argument("directory", type=Path, metavar="PREPARE_DIR", help="with prepare.json in it")
    parser.add_argument("--stop-fd", type=int, metavar="N", help="stop when this inherited pipe closes")
    parser.add_argument("--processes", type=int, default=available_cores(), metavar="N", help="default: one a core")
    options = parser.parse_args(arguments)
    if not (options.directory / "prepare.json").is_file():
        parser.error(f"there is no file {options.directory / 'prepare.json'}")
    log = RunLog(options.directory / "events.jsonl")
    progress = Progress(
        lambda done, total: log.write("progress", done, done=done, total=total), StopSignal(options.stop_fd)
    )
    try:
        document = prepare(options.directory, options.processes, progress)
    except Stopped:
        log.write("stopped")
        return 0
    except DataError as error:
        log.write("failed", code=error.code, message=error.message)
        print(error.message, file=sys.stderr)  # noqa: T201 - a program's stderr
        return 1
    log.write("finished", document["examples"], examples=document["examples"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
