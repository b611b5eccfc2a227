"""Running a preparation in a test: in this process, or as the program that it is."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.source import HOUSE
from tests.strategies import write_zip
from worker.data.members import DataError
from worker.data.prepare import prepare
from worker.data.progress import Progress


@dataclass
class Prepared:
    """What a preparation left in its directory."""

    document: dict[str, Any]
    examples: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def report(self) -> dict[str, Any]:
        return self.document["report"]

    @property
    def classes(self) -> list[str]:
        return [entry["name"] for entry in self.document["classes"]]


def request(directory: Path, archive: Path, limits: Mapping[str, int] | None = None, **options: Any) -> None:
    """Write prepare.json."""
    directory.mkdir(exist_ok=True)
    document = {"source": {"kind": "archive", "path": str(archive)}, "options": options, "limits": limits or {}}
    (directory / "prepare.json").write_text(json.dumps(document), encoding="utf-8")


def load(directory: Path) -> Prepared:
    return Prepared(
        json.loads((directory / "dataset.json").read_text(encoding="utf-8")),
        np.load(directory / "examples.npy", allow_pickle=False),
        np.load(directory / "labels.npy", allow_pickle=False),
    )


def prepare_archive(folder: Path, archive: Path, limits: Mapping[str, int] | None = None, **options: Any) -> Prepared:
    """Prepare an archive in this process; `folder` is for scratch."""
    directory = folder / "prepare"
    request(directory, archive, limits, **options)
    prepare(directory, 1, Progress(lambda _done, _total: None, lambda: False))
    return load(directory)


def prepare_files(folder: Path, files: Mapping[str, bytes], **options: Any) -> Prepared:
    """Prepare a zip of these files."""
    return prepare_archive(folder, write_zip(folder / "upload.zip", files), **options)


def refusal(folder: Path, archive: Path, limits: Mapping[str, int] | None = None, **options: Any) -> DataError:
    """The error that an archive is refused with, after which nothing may be left."""
    with pytest.raises(DataError) as caught:
        prepare_archive(folder, archive, limits, **options)
    assert leftovers(folder / "prepare") == set()
    assert "Traceback" not in caught.value.message
    return caught.value


def leftovers(directory: Path) -> set[str]:
    """What is in a preparation's directory besides its request and its log."""
    return {path.name for path in directory.iterdir()} - {"prepare.json", "events.jsonl"}


def start(directory: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start `python -m worker.data`."""
    command = [sys.executable, "-m", "worker.data", str(directory), *arguments]
    return subprocess.Popen(command, cwd=HOUSE, start_new_session=True, **options)


def run(directory: Path, *arguments: str) -> int:
    """Run it to its end; its exit status."""
    with start(directory, *arguments) as process:
        return process.wait(60)


def events(directory: Path) -> list[dict[str, Any]]:
    path = directory / "events.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
