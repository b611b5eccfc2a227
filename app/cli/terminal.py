"""Where the commands write to."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

console = Console()


def fail(*lines: str) -> NoReturn:
    """End the command with status 1 and these lines on stderr."""
    print(*lines, sep="\n  ", file=sys.stderr)  # noqa: T201 - what a command is for
    raise SystemExit(1)


def make_directory(path: Path) -> None:
    """Creates it, or ends the command when nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        fail(f"{path} is a file; give a directory.")
    except OSError as error:
        fail(f"The directory {path} cannot be made: {error.strerror}.")
    if not os.access(path, os.W_OK | os.X_OK):
        fail(f"The directory {path} cannot be written to.")


def print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Aligned and never cut, however narrow the terminal is: what stands there is there to be copied."""
    lines = [columns, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
