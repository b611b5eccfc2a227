"""Tests that want a program which not every machine has: left out without it, and said so at the end of the run.

`@pytest.mark.needs("postgres")` names the program. With GANVIL_TEST_ALL=1 in the environment nothing may be left out.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.servers import postgres_programs


class Need(NamedTuple):
    """What is wanted, whether it is here, and the command that installs it."""

    title: str
    is_met: Callable[[], bool]
    install: str


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


NEEDS = {
    "postgres": Need("PostgreSQL", lambda: postgres_programs() is not None, "apt-get install -y postgresql"),
    "chromium": Need("Chromium", lambda: chromium() is not None, "apt-get install -y chromium"),
    "compose": Need(
        "docker-compose", lambda: shutil.which("docker-compose") is not None, "apt-get install -y docker-compose"
    ),
}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(program): runs where the program is installed ({', '.join(NEEDS)})")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {name for name, need in NEEDS.items() if not need.is_met()}
    wants = {item: {name for mark in item.iter_markers("needs") for name in mark.args} for item in items}
    left_out = [item for item in items if wants[item] & missing]
    config.stash[LEFT_OUT] = Counter(name for item in left_out for name in wants[item] & missing)
    if left_out and os.environ.get("GANVIL_TEST_ALL") == "1":
        raise pytest.UsageError("GANVIL_TEST_ALL=1 leaves no test out.\n" + "\n".join(_lines(config)))
    if left_out:
        items[:] = [item for item in items if not wants[item] & missing]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _lines(terminalreporter.config)
    if lines:
        terminalreporter.section("not run")
        for line in lines:
            terminalreporter.write_line(line)


def _lines(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(LEFT_OUT, Counter())
    return [
        f"tests that need {NEEDS[name].title}, which is not installed: {count}; to install it: {NEEDS[name].install}"
        for name, count in sorted(left_out.items())
    ]
