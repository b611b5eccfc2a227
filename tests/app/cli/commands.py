"""The command line, as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.source import HOUSE

NOWHERE = "http://127.0.0.1:1"


def ganvil(*arguments: str, cwd: Path = HOUSE, url: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    """What came of a command."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def started(*arguments: str, url: str) -> subprocess.Popen[str]:
    """A command that runs."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command(*arguments), cwd=HOUSE, env=environment(url), stdout=pipe, stderr=pipe, text=True)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def environment(url: str) -> dict[str, str]:
    return os.environ | {"GANVIL_URL": url, "COLUMNS": "60", "PYTHONPATH": str(HOUSE)}
