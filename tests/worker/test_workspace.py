import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage import Storage
from tests.s3 import BUCKET, CREDENTIALS, s3_server
from tests.worker.helpers import start
from worker.data import PREPARED_FILES
from worker.workspace import DatasetCache, clean_run_directories, run_directory


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A storage that has no local paths."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as endpoint:
        yield Storage(f"s3://{BUCKET}/files?endpoint={endpoint}&region=us-east-1")


def store(storage: Storage, key: str, size: int = 100) -> None:
    for name in PREPARED_FILES:
        storage.put_bytes(f"{key}/{name}", name.encode().ljust(size))


def test_run_directory_is_ours_and_goes_away(tmp_path: Path) -> None:
    """A run has an empty directory while it lasts; afterwards nothing of it is left."""
    (tmp_path / "job_1.2").mkdir()
    (tmp_path / "job_1.2" / "left-over").touch()
    with run_directory(tmp_path, "job_1.2") as directory:
        assert list(directory.path.iterdir()) == []
        assert directory.path.is_absolute()
    assert list(tmp_path.iterdir()) == []


def test_only_dead_runs_are_cleaned_away(tmp_path: Path) -> None:
    """What a dead worker left is removed; what a living process holds stays."""
    (tmp_path / "job_dead.1").mkdir()
    (tmp_path / "job_dead.1" / "state.pt").touch()
    (tmp_path / "job_dead.1.lock").touch()
    with run_directory(tmp_path, "job_live.1") as live:
        assert clean_run_directories(tmp_path) == 1
        assert live.path.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["job_live.1", "job_live.1.lock"]


def test_directory_of_an_orphaned_child_stays(tmp_path: Path) -> None:
    """While a child lives that inherited the lock, its directory is not taken from under it, though its parent is gone."""
    directory, lock_file = tmp_path / "job_1.1", tmp_path / "job_1.1.lock"
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with start(directory, "say('started'); asked_to_stop(60)", keep_open=[lock]) as child:
        os.close(lock)
        assert clean_run_directories(tmp_path) == 0
        child.stop()
        assert child.wait(10)
        assert clean_run_directories(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_local_data_sets_are_read_in_place(tmp_path: Path) -> None:
    """Files of a local storage are used where they lie."""
    storage = Storage(f"file://{tmp_path}/objects")
    store(storage, "datasets/ds_1/1")
    with DatasetCache(tmp_path / "cache", storage).files("datasets/ds_1/1", "ds_1-abc") as path:
        assert path == tmp_path / "objects/datasets/ds_1/1"
    assert not (tmp_path / "cache").exists()


def test_remote_data_sets_are_fetched_once(tmp_path: Path, remote: Storage) -> None:
    """Several runs that want one data set at once share a single copy."""
    store(remote, "datasets/ds_1/1")
    cache = DatasetCache(tmp_path, remote)
    found: list[int] = []

    def use() -> None:
        with cache.files("datasets/ds_1/1", "ds_1-abc") as path:
            found.append((path / "examples.npy").stat().st_ino)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_cache_drops_what_was_used_longest_ago(tmp_path: Path, remote: Storage) -> None:
    """Over its bound the cache lets go of the least recently used data set, but never of one in use."""
    for number in range(4):
        store(remote, f"datasets/ds_{number}/1")
    cache = DatasetCache(tmp_path, remote, limit_bytes=700)

    def use(number: int) -> None:
        with cache.files(f"datasets/ds_{number}/1", f"ds_{number}"):
            time.sleep(0.02)  # so that the times of use differ

    def kept() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    use(0)
    use(1)
    use(0)
    use(2)
    assert kept() == {"ds_0", "ds_2"}
    with cache.files("datasets/ds_0/1", "ds_0") as held:
        use(2)
        use(3)
        assert held.exists()
    assert kept() == {"ds_0", "ds_3"}
