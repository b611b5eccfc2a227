"""Watching what is loaded, and holding it up."""

import threading
from pathlib import Path
from typing import Any

import pytest

from app.registry import Resolved
from app.sampling import engine


def count_loads(monkeypatch: pytest.MonkeyPatch, may_end: threading.Event | None = None) -> list[str]:
    """The labels of those that are loaded from now on; none is there before `may_end` is set."""
    loads: list[str] = []
    load = engine.load

    def counted(snapshot: Path, resolved: Resolved) -> Any:
        loads.append(resolved.label)
        if may_end is not None:
            may_end.wait(20)
        return load(snapshot, resolved)

    monkeypatch.setattr(engine, "load", counted)
    return loads
