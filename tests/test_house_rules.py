"""The house rules that a linter does not know. Each test lists every offender at once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.source import HOUSE, python_files, tree

Function = ast.FunctionDef | ast.AsyncFunctionDef

OURS = python_files("app", "worker", "models")
SOURCE = [*OURS, *python_files("tests", "bench")]
LONGEST_MODULE = 300
LONGEST_FUNCTION = 40
LONGER_FUNCTIONS = {"worker/trainer/loop.py:train": 120}  # the adversarial loop, readable from top to bottom
MIGRATIONS = "app/migrations/"  # a schema is as long as it is
# Settings are read by app/settings.py alone. These hand the environment on to child processes.
HANDS_ENVIRONMENT_ON = {
    "app/exporting.py",
    "app/up/tree.py",
    "app/cli/demo.py",
    "worker/child.py",
    "worker/data/features.py",
    "worker/trainer/launcher.py",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_modules_are_short() -> None:
    """A module has fewer than 300 lines."""
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE}
    assert {name: lines for name, lines in lengths.items() if lines >= LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    """A function has fewer than 40 lines, the training loop fewer than 120."""
    found = [(f"{name_of(path)}:{node.name}", length(node)) for path in SOURCE for node in functions(path)]
    written = [(name, lines) for name, lines in found if not name.startswith(MIGRATIONS)]
    assert [(name, lines) for name, lines in written if lines >= LONGER_FUNCTIONS.get(name, LONGEST_FUNCTION)] == []


def test_every_test_says_what_it_shows() -> None:
    """Each test has a docstring whose first line states the behaviour."""
    files = [path for path in python_files("tests") if path.name.startswith("test_")]
    tests = [(path, node) for path in files for node in functions(path) if node.name.startswith("test_")]
    silent = [(path, node) for path, node in tests if not (ast.get_docstring(node) or "").strip()]
    assert [f"{name_of(path)}:{node.name}" for path, node in silent] == []


def test_nothing_swallows_every_error() -> None:
    """A broad `except` is one that records the failure and raises the same again."""
    handlers = [(path, node) for path in OURS for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    broad = [(path, node) for path, node in handlers if is_broad(node) and not raises_again(node)]
    assert [f"{name_of(path)}:{node.lineno}" for path, node in broad] == []


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it ends in a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(entry, ast.Name) and entry.id in {"Exception", "BaseException"} for entry in caught)


def test_only_settings_read_the_environment() -> None:
    """There is one place where the environment becomes settings; the rest is told."""
    reads = {name_of(path) for path in OURS for node in ast.walk(tree(path)) if is_environment(node)}
    assert reads - HANDS_ENVIRONMENT_ON == {"app/settings.py"}


def is_environment(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}


def test_nothing_is_left_for_later() -> None:
    """No unfinished work is marked in the code; what does not exist yet is said in the README."""
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")))
    assert [name_of(path) for path in SOURCE if marks.search(path.read_text(encoding="utf-8"))] == []
