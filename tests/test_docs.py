"""The documentation is true: every example in it runs, every setting and every link in it exists."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.settings import Settings
from tests.source import HOUSE

DOCUMENTS = [HOUSE / "README.md", HOUSE / "CHANGELOG.md", *sorted((HOUSE / "docs").rglob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"  # what the examples say; the service under test listens elsewhere
# Lines that would start a second suite, demo or service: what is run in their place. The demo and `up` have tests of their own.
INSTEAD = {
    "make demo": "make --dry-run demo",
    "make test": "make --dry-run test",
    ".venv/bin/ganvil up": ".venv/bin/ganvil up --help",
    ".venv/bin/ganvil up --host 0.0.0.0": ".venv/bin/ganvil up --help",
}
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


class Block(NamedTuple):
    language: str
    code: str


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def blocks(document: Path) -> list[Block]:
    return [Block(found["language"], found["code"]) for found in BLOCK.finditer(document.read_text(encoding="utf-8"))]


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """An empty directory from which the documentation's commands are found as if it were the house."""
    (tmp_path / "Makefile").symlink_to(HOUSE / "Makefile")
    (tmp_path / "requirements.lock").symlink_to(HOUSE / "requirements.lock")
    (tmp_path / "pyproject.toml").symlink_to(HOUSE / "pyproject.toml")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = f'#!/bin/sh\nexec "{sys.executable}" -m app.cli "$@"\n'
    (tmp_path / ".venv" / "bin" / "ganvil").write_text(script)
    (tmp_path / ".venv" / "bin" / "ganvil").chmod(0o755)
    return tmp_path


def command_of(block: Block, url: str) -> list[str]:
    code = block.code.replace(ADDRESS, url)
    if block.language == "python":
        return [sys.executable, "-c", code]
    assert block.language == "bash", f"no way to run {block.language!r}"
    lines = [INSTEAD.get(line, line) for line in code.splitlines()]
    return ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]


@pytest.mark.slow
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path)], ids=name_of)
def test_examples_run(document: Path, workplace: Path, live_service: str) -> None:
    """Every code block runs as it stands, in order, in an empty directory, against a running service."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"GANVIL_URL": live_service, "PYTHONPATH": str(HOUSE), "PATH": path}
    for block in blocks(document):
        done = subprocess.run(
            command_of(block, live_service),
            cwd=workplace,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of ours, pictures included, names one that exists."""
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def setting_row(name: str) -> str:
    """A setting's line in the table of docs/settings.md."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        default = str(getattr(Settings(data_dir=Path("/ganvil-data")), name)).replace("/ganvil-data", "<data_dir>")
    else:
        default = "" if field.default in {None, ()} else str(field.default)
    shown = f"`{default}`" if default else ""
    return f"| `GANVIL_{name.upper()}` | {shown} | {field.description} |".replace("|  |", "| |")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented(name: str) -> None:
    """Every setting has its line, with the default and the description that the code has."""
    assert setting_row(name) in (HOUSE / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()


def test_decisions_are_numbered() -> None:
    """Decision records are numbered without a gap, and each begins with its number."""
    records = sorted((HOUSE / "docs" / "adr").glob("*.md"))
    for number, record in enumerate(records, start=1):
        assert record.name.startswith(f"{number:04}-")
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")
