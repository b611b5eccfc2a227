"""Prepare a data set: `python -m worker.data PREPARE_DIR [--stop-fd N] [--processes N]`.

PREPARE_DIR/prepare.json, in:

    {"source": {"kind": "archive", "path": "/abs/upload.zip"} or {"kind": "builtin", "name": "digits"},
     "options": {"resolution": int or null, "fit": "crop" | "pad" | "stretch"},      (null and crop where left out)
     "limits": {"members", "total_bytes", "member_bytes", "ratio", "pixels", "prepared_bytes"}}    (members.Limits where left out)

Out, all at once at the end:

    examples.npy    uint8 [N, H, W, C], ordered by class and then path, both naturally
    labels.npy      int64 [N], indices into the classes; -1 throughout when there are none
    dataset.json    {"examples", "height", "width", "channels", "classes": [{"name", "count"}], "sha256", "report": {
                     "skipped": [{"file", "reason"}] (100 at most), "skipped_total", "ignored" (clutter such as .DS_Store),
                     "duplicates", "sizes": [{"width", "height", "count"}] (the 50 most frequent), "conversions": {name: count}}}
    events.jsonl    appended: "progress" {"done", "total"} in images, at least once a second; last one of "finished",
                    "failed" {"code", "message"}, "stopped"

Exit status 0 after finished or stopped, 1 after failed. Stops on SIGTERM, SIGINT and when the pipe on --stop-fd closes.

The rules stand in worker.dataset: `layout` says which images are used and how they are labelled, `images` how each becomes an
example, `plan` which shape they all get, `archives` and `arrays` what can be read. Images that cannot be decoded are left out and
listed; more than a tenth of them fail the preparation. `sha256` is over shape, classes, examples and labels. Memory does not grow
with the number of images but for 17 bytes each: label, digest (for counting duplicates) and whether it is sound.
"""

import argparse
import errno
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.dataset.collect import collect
from worker.dataset.examples import decode_all, describe, drop_corrupt, survey
from worker.dataset.images import FITS, Fit
from worker.dataset.index import Index
from worker.dataset.members import DataError, Limits
from worker.dataset.plan import channels_to_decode, channels_to_keep, check_target, choose_target
from worker.dataset.pool import Pool
from worker.dataset.progress import Progress, Stopped
from worker.dataset.rows import hash_examples, narrow
from worker.runlog import RunLog
from worker.stop import StopSignal

OUTPUTS = ("examples.npy", "labels.npy", "dataset.json")  # the last one says that the others are complete
SCRATCH = ".prepare"
RESOLUTIONS = range(4, 1025)
DIGITS_RESOLUTION = 32  # of 8, smoothly: a person can read them, and a deep network has something to do
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Request:
    """prepare.json, checked."""

    source: dict[str, Any]
    resolution: int | None
    fit: Fit
    limits: Limits


def read_request(directory: Path) -> Request:
    """Raises DataError `bad_option`."""
    document = json.loads((directory / "prepare.json").read_text(encoding="utf-8"))
    source, options = document["source"], document.get("options", {})
    resolution, fit = options.get("resolution"), options.get("fit") or "crop"
    if fit not in FITS:
        raise DataError("bad_option", f"fit is {fit!r}; it is one of {', '.join(FITS)}.")
    if resolution is not None and (not isinstance(resolution, int) or resolution not in RESOLUTIONS):
        raise DataError(
            "bad_option",
            f"resolution is {resolution!r}; it is a whole number from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]}.",
        )
    if resolution is None and source.get("kind") == "builtin":
        resolution = DIGITS_RESOLUTION
    return Request(source, resolution, fit, Limits(**document.get("limits", {})))


def prepare(directory: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """Prepare as PREPARE_DIR/prepare.json says; returns the contents of dataset.json.

    Raises DataError and Stopped, and then leaves nothing behind.
    """
    scratch = directory / SCRATCH
    for name in OUTPUTS:
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with _disk_full_is_an_answer():
            request = read_request(directory)
            scratch.mkdir()
            with Pool(processes) as pool:
                document = _build(request, scratch, pool, progress)
            for name in OUTPUTS:
                (scratch / name).replace(directory / name)
            return document
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(request: Request, scratch: Path, pool: Pool, progress: Progress) -> dict[str, Any]:
    """Write the three outputs into `scratch`."""
    examples = scratch / "examples.npy"
    with Index(scratch / "index.sqlite") as index:
        source = collect(request.source, index, scratch, request.limits, progress.tick)
        progress.expect(index.count_images())
        headers = survey(index, source, pool, progress)
        channels = channels_to_decode(headers.sizes.total(), headers.with_alpha, headers.with_colour)
        target = choose_target(headers.sizes, channels, request.fit, request.resolution)
        check_target(headers.sizes, target, request.limits.prepared_bytes)
        done = decode_all(index, source, target, examples, pool, progress)
        rows = int(done.sound.sum())
        channels = channels_to_keep(rows, channels, transparent=done.transparent, coloured=done.coloured)
        kept = narrow(examples, target, done.sound, channels, progress.tick)
        drop_corrupt(done)
        sha256 = hash_examples(examples, kept, done.labels, done.classes, progress.tick)
        document = describe(index, done, target, kept, sha256)
    np.save(scratch / "labels.npy", done.labels, allow_pickle=False)
    (scratch / "dataset.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return document


@contextmanager
def _disk_full_is_an_answer() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise _disk_full() from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            raise
        raise _disk_full() from error


def _disk_full() -> DataError:
    return DataError(
        "disk_full",
        "the disk of the worker is full, nothing was kept. Free some space or choose a smaller resolution, and upload it again.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.data", description="Prepare a data set for training.")
    parser.add_argument("directory", type=Path, metavar="PREPARE_DIR", help="with prepare.json in it")
    parser.add_argument("--stop-fd", type=int, metavar="N", help="stop when this inherited pipe closes")
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="default: one a core"
    )
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
        return 1
    log.write("finished", document["examples"], examples=document["examples"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
