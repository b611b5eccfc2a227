"""From an upload to the files of a prepared data set, all of them or none. `worker.data` says what they hold."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.machine import DISK_FULL
from worker.data import FEATURES_FILE, PREPARED_FILES
from worker.data.collect import collect
from worker.data.examples import decode_all, describe, drop_corrupt, survey
from worker.data.features import are_enough, train_features
from worker.data.images import FITS, Fit
from worker.data.index import Index
from worker.data.members import DataError, Limits
from worker.data.plan import channels_to_decode, channels_to_keep, check_target, choose_target
from worker.data.pool import Pool
from worker.data.progress import Progress
from worker.data.rows import hash_examples, narrow

SCRATCH = ".prepare"
RESOLUTIONS = range(4, 1025)
DIGITS_RESOLUTION = 32  # of 8, smoothly: a person can read them, and a deep network has something to do


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
    for name in (FEATURES_FILE, *PREPARED_FILES):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with _disk_full_is_an_answer():
            request = read_request(directory)
            scratch.mkdir()
            with Pool(processes) as pool:
                document = _build(request, scratch, pool, progress)
            train_features(scratch, document, processes, progress)
            (scratch / "dataset.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            for name in (FEATURES_FILE, *PREPARED_FILES) if "features" in document else PREPARED_FILES:
                (scratch / name).replace(directory / name)
            return document
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(request: Request, scratch: Path, pool: Pool, progress: Progress) -> dict[str, Any]:
    """Write the examples and the labels into `scratch`; gives what dataset.json says of them."""
    examples = scratch / "examples.npy"
    with Index(scratch / "index.sqlite") as index:
        source = collect(request.source, index, scratch, request.limits, progress.tick)
        progress.expect(index.count_images(), passes=3 if are_enough(index.class_counts()) else 2)
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
    return document


@contextmanager
def _disk_full_is_an_answer() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
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
