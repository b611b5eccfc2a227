"""Tests that want a program which is not installed are left out, and the run says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source import HOUSE

TESTS = """
import pytest

@pytest.mark.needs("chromium")
def test_browser(): pass

def test_other(): pass
"""


@pytest.fixture
def collect(tmp_path: Path) -> "Collect":
    (tmp_path / "test_sample.py").write_text(TESTS, encoding="utf-8")
    return Collect(tmp_path)


class Collect:
    """Runs the sample tests on a machine that has nothing on its PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, **environment: str) -> subprocess.CompletedProcess[str]:
        bare = {"PATH": str(self._folder), "PYTHONPATH": str(HOUSE), "HOME": os.environ.get("HOME", "/")} | environment
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.needs", "-p", "no:cacheprovider", "."]
        return subprocess.run(
            command, cwd=self._folder, env=bare, capture_output=True, text=True, timeout=60, check=False
        )


def test_what_cannot_run_is_listed(collect: Collect) -> None:
    """Without the program its tests are left out, the others run, and the end names the command that installs it."""
    run = collect()
    assert run.returncode == 0
    assert "1 passed, 1 deselected" in run.stdout
    assert "tests that need Chromium: 1; to have them run: apt-get install -y chromium" in run.stdout


def test_processes_that_share_the_tests_list_it_once(collect: Collect) -> None:
    """As one process does."""
    run = collect(PYTEST_ADDOPTS="-p xdist -n 2")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("tests that need Chromium: 1; to have them run: apt-get install -y chromium") == 1


def test_nothing_may_be_left_out_on_demand(collect: Collect) -> None:
    """With GANVIL_TEST_ALL=1 a missing program fails the run."""
    run = collect(GANVIL_TEST_ALL="1")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "apt-get install -y chromium" in run.stderr
