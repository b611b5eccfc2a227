"""Pages and cursors, seen through the list of data sets."""

import pytest

from app import datasets
from app.db import Database
from app.errors import Invalid


@pytest.fixture
def database(any_database: Database) -> Database:
    """Each test runs on SQLite and on PostgreSQL."""
    return any_database


def make_builtin(database: Database, name: str | None = None) -> None:
    with database.writing() as session:
        datasets.register_builtin(session, "digits", name=name)


def test_list(database: Database) -> None:
    """Pages go from the newest to the oldest, each once, also while others are added and deleted."""
    for _ in range(5):
        make_builtin(database)
    with database.reading() as session:
        first, cursor = datasets.list_datasets(session, limit=2)
    make_builtin(database, "later")
    with database.writing() as session:
        datasets.delete(session, "digits-2")
    with database.reading() as session:
        second, last = datasets.list_datasets(session, limit=2, cursor=cursor)
        whole, end = datasets.list_datasets(session, limit=100)
    assert [row.name for row in first] == ["digits-5", "digits-4"]
    assert [row.name for row in second] == ["digits-3", "digits"]
    assert (last, end) == (None, None)
    assert len(whole) == 5


@pytest.mark.parametrize("cursor", ["", "x", "ä", "W10", "WzEsMl0", "bnVsbA", "WzEuMCwgImEiLCAxXQ"])
def test_foreign_cursor(database: Database, cursor: str) -> None:
    """A cursor that this list never gave is refused."""
    with database.reading() as session, pytest.raises(Invalid, match="cursor") as caught:
        datasets.list_datasets(session, cursor=cursor)
    assert caught.value.errors[0].pointer == "#/cursor"
