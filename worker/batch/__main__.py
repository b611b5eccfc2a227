"""The command line of a batch."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app import interpreter
from app.errors import Gone, TooHeavy
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling.seeds import parse_ranges
from models.machine import DISK_FULL
from worker.batch.making import Plan, Stopped, make_shards
from worker.batch.samples import load
from worker.runlog import RunLog
from worker.stop import StopSignal

NICENESS = 5  # whoever waits for a single sample on the same cores comes first


def make(directory: Path, request: dict[str, Any], log: RunLog, stop: StopSignal) -> None:
    """Make what batch.json asks for. Raises Stopped, and as `app.sampling.engine.load` does."""
    resolved = Resolved(**request["model"], ref=request["model"]["label"], pinned=True, examples_seen=0, kid=None)
    info, options = resolved.info, request["options"]
    chosen = None if options["format"] is None else FORMATS[options["format"]]
    with ThreadPoolExecutor(1, "forward") as forwards:
        maker = load(
            Path(request["snapshot"]),
            resolved,
            forwards,
            threads=request["threads"],
            label=options["class"],
            truncation=options["truncation"],
            format=chosen,
        )
        log.write("started", engine=maker.engine)
        plan = Plan(
            seeds=parse_ranges(request["seeds"], limit=request["total"]),
            shard_size=options["shard_size"],
            first_shard=request["first_shard"],
            container=options["container"],
            extension="" if chosen is None else chosen.extension,
            classes=info["classes"],
            sample_bytes=info["height"] * info["width"] * info["channels"],
        )
        make_shards(plan, maker, directory / "shards", stop, lambda **about: log.write("shard", **about))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status. What is not said here ends with a traceback: it may be worth another try."""
    parser = argparse.ArgumentParser(prog="python -m worker.batch", description="Make the shards of a batch.")
    parser.add_argument("directory", type=Path, metavar="RUN_DIR", help="with batch.json in it")
    parser.add_argument("--stop-fd", type=int, metavar="N", help="stop when this inherited pipe closes")
    options = parser.parse_args(arguments)
    if not (options.directory / "batch.json").is_file():
        parser.error(f"there is no file {options.directory / 'batch.json'}")
    os.nice(NICENESS)
    interpreter.tune()
    request = json.loads((options.directory / "batch.json").read_bytes())
    log = RunLog(options.directory / "events.jsonl")
    try:
        make(options.directory, request, log, StopSignal(options.stop_fd))
    except Stopped:
        log.write("stopped")
        return 0
    except (Gone, TooHeavy) as error:
        return _failed(log, error.code, error.detail)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        return _failed(log, "storage_full", "The worker's disk is full.")
    log.write("finished")
    return 0


def _failed(log: RunLog, code: str, message: str) -> int:
    log.write("failed", code=code, message=message)
    print(message, file=sys.stderr)  # noqa: T201 - a program's stderr
    return 1


if __name__ == "__main__":
    sys.exit(main())
