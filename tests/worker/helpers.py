"""Children whose behaviour is written in the test."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.child import Child, Lines


def start(
    directory: Path, script: str, environment: Mapping[str, str] | None = None, keep_open: Sequence[int] = ()
) -> Child:
    """A child that runs the script; see `tests.worker.script` for what it has at hand."""
    directory.mkdir(exist_ok=True)
    (directory / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    return Child("tests.worker.script", directory, environment=environment or {}, keep_open=keep_open)


def lines_of(directory: Path) -> Lines:
    return Lines(directory / "events.jsonl")


def said(directory: Path) -> list[str]:
    """The kinds of all that it has said."""
    return [line["kind"] for line in lines_of(directory).read()]
