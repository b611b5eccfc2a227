from pathlib import Path

import pytest

from app.db import Database


@pytest.fixture
def database(any_database: Database) -> Database:
    """Each test runs on SQLite and on PostgreSQL."""
    return any_database


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "received"
    path.write_bytes(b"an archive")
    return path
