"""Clearing orphans reads the list of the whole storage: workers take turns at it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from app import orphans
from app.db import Database
from app.storage import Storage
from app.tables import Chore
from tests.factories import make_dataset


def test_one_worker_takes_each_turn(any_database: Database) -> None:
    """Of workers that ask at once one clears, and nobody does again until a period is over; then one does."""

    def take_turn(_: int) -> bool:
        with any_database.writing() as session:
            return orphans.take_turn(session)

    with ThreadPoolExecutor(5) as pool:
        for _ in range(2):
            assert sorted(pool.map(take_turn, range(5))) == [False] * 4 + [True]
            assert not take_turn(0)
            with any_database.writing() as session:
                session.get_one(Chore, orphans.CHORE).begun_at -= orphans.period(any_database.settings) + 1.0


def test_a_turn_clears(any_database: Database, storage: Storage) -> None:
    """Whoever has the turn clears; who asks within the period lists and deletes nothing."""
    with any_database.writing() as session:
        dataset = make_dataset(session)
        dataset.created_at = 1.0
    key = f"datasets/{dataset.id}/7/examples.npy"
    for stays in (False, True):
        storage.put_bytes(key, b"x")
        path = storage.local_path(key)
        assert path is not None
        os.utime(path, (1.0, 1.0))
        orphans.clear_when_due(any_database, storage, threading.Event())
        assert storage.exists(key) is stays
