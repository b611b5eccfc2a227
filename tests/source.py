"""Reads our own source: which modules there are, and what each one imports."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "worker", "models")


@dataclass(frozen=True)
class Import:
    """One imported module, as a dotted name; `lazy` when the statement stands inside a function."""

    module: str
    lazy: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def python_files(*folders: str) -> list[Path]:
    """Every Python file under these folders of the house, without caches."""
    return sorted(path for folder in folders for path in (HOUSE / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Our modules by dotted name."""
    return {module_name(path): path for path in python_files(*PACKAGES)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """What a module of ours imports, lazily or not. `from app import jobs` counts as app.jobs."""
    found: list[Import] = []
    _collect(tree(modules()[name]), lazy=False, found=found)
    return tuple(found)


def _collect(node: ast.AST, *, lazy: bool, found: list[Import]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [Import(alias.name, lazy) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                found.append(Import(full if full in modules() else child.module, lazy))
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            _collect(child, lazy=lazy or inside or _for_types_only(child), found=found)


def _for_types_only(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def eager_closure(name: str) -> frozenset[str]:
    """Every module, ours or not, that importing `name` brings in, following our own imports made at import time."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        if module in modules():
            waiting += [entry.module for entry in imports(module) if not entry.lazy]
            waiting += [parent for parent in _parents(module) if parent in modules()]
    return frozenset(reached)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def tops(names: frozenset[str]) -> set[str]:
    """The top-level packages among dotted names."""
    return {name.partition(".")[0] for name in names}
