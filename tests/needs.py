"""Tests that want a program which not every machine has, or minutes: left out without it, and said so at the end of the run.

`@pytest.mark.needs("postgres")` names the program and `@pytest.mark.slow` asks for time. With GANVIL_TEST_ALL=1 in the environment
nothing may be left out.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.servers import postgres_programs


class Need(NamedTuple):
    """What is wanted, whether it is here, and the command that brings it."""

    title: str
    is_met: Callable[[], bool]
    command: str


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def nothing_left_out() -> bool:
    return os.environ.get("GANVIL_TEST_ALL") == "1"


NEEDS = {
    "time": Need("minutes", nothing_left_out, "GANVIL_TEST_ALL=1 make test"),
    "postgres": Need("PostgreSQL", lambda: postgres_programs() is not None, "apt-get install -y postgresql"),
    "chromium": Need("Chromium", lambda: chromium() is not None, "apt-get install -y chromium"),
    "wrk": Need("wrk", lambda: shutil.which("wrk") is not None, "apt-get install -y wrk"),
    "compose": Need(
        "docker-compose", lambda: shutil.which("docker-compose") is not None, "apt-get install -y docker-compose"
    ),
}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(program): runs where the program is installed ({', '.join(NEEDS)})")
    if nothing_left_out() and (missing := _missing()):
        lines = (f"{NEEDS[name].title} is missing: {NEEDS[name].command}" for name in sorted(missing))
        raise pytest.UsageError("GANVIL_TEST_ALL=1 leaves no test out.\n" + "\n".join(lines))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = _missing()
    wants = {item: _wanted(item) for item in items}
    left_out = [item for item in items if wants[item] & missing]
    config.stash[LEFT_OUT] = Counter(name for item in left_out for name in wants[item] & missing)
    if left_out:
        items[:] = [item for item in items if not wants[item] & missing]
        config.hook.pytest_deselected(items=left_out)


def _missing() -> set[str]:
    return {name for name, need in NEEDS.items() if not need.is_met()}


def _wanted(item: pytest.Item) -> set[str]:
    programs = {name for mark in item.iter_markers("needs") for name in mark.args}
    return programs | ({"time"} if item.get_closest_marker("slow") else set())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes that share the tests tells the one that sums up; each has seen all of them."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(session.config.stash.get(LEFT_OUT, Counter()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _lines(terminalreporter.config)
    if lines:
        terminalreporter.section("not run")
        for line in lines:
            terminalreporter.write_line(line)


def _lines(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(LEFT_OUT, Counter())
    return [
        f"tests that need {NEEDS[name].title}: {count}; to have them run: {NEEDS[name].command}"
        for name, count in sorted(left_out.items())
    ]
