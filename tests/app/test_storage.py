"""What every storage scheme promises, asked of a folder and of a real S3 API."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.errors import NotFound
from app.storage import Storage

MIB = 1024 * 1024


@pytest.fixture
def objects(any_storage_url: str) -> Storage:
    return Storage(any_storage_url)


def test_bytes_come_back(objects: Storage) -> None:
    """What was put is what is got, also nothing at all, and its size is known."""
    for data in (b"", b"hello", bytes(range(256))):
        objects.put_bytes("a/b.bin", data)
        assert objects.get_bytes("a/b.bin") == data
        assert b"".join(objects.stream("a/b.bin")) == data
        assert objects.size("a/b.bin") == len(data)


def test_put_replaces(objects: Storage, tmp_path: Path) -> None:
    """A second put of a key replaces the first, whichever way either came."""
    objects.put_bytes("a", b"one")
    (tmp_path / "two").write_bytes(b"two")
    objects.put_file("a", tmp_path / "two")
    assert objects.get_bytes("a") == b"two"
    objects.put_bytes("a", b"three")
    assert objects.get_bytes("a") == b"three"
    assert (tmp_path / "two").read_bytes() == b"two"


def test_put_of_the_same_file_again(objects: Storage, tmp_path: Path) -> None:
    """Putting a file under a key that holds it already changes nothing and leaves nothing behind."""
    (tmp_path / "file").write_bytes(b"same")
    for _ in range(2):
        objects.put_file("a/file", tmp_path / "file")
    assert objects.get_bytes("a/file") == b"same"
    assert list(objects.list("a")) == ["a/file"]


def test_big_file(objects: Storage, tmp_path: Path) -> None:
    """A file of several parts comes back whole, through the stream and as a file."""
    data = os.urandom(MIB) * 20 + b"tail"
    (tmp_path / "big").write_bytes(data)
    objects.put_file("a/big", tmp_path / "big")
    assert b"".join(objects.stream("a/big")) == data
    objects.get_file("a/big", tmp_path / "new" / "folder" / "copy")
    assert (tmp_path / "new" / "folder" / "copy").read_bytes() == data
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["copy"]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 10), (3, 7), (9, 10), (4, None), (0, None), (5, 1000)])
def test_stream_of_a_range(objects: Storage, start: int, end: int | None) -> None:
    """A range is [start, end), cut at the end of the object."""
    objects.put_bytes("a", b"0123456789")
    assert b"".join(objects.stream("a", start, end)) == b"0123456789"[start:end]


def test_several_ranges(objects: Storage) -> None:
    """Ranges come back in the order in which they were asked for, also when they overlap."""
    objects.put_bytes("a", b"0123456789")
    assert objects.get_ranges("a", [(8, 10), (0, 2), (1, 3)]) == [b"89", b"01", b"12"]
    assert objects.get_ranges("a", []) == []


def test_missing_objects(objects: Storage, tmp_path: Path) -> None:
    """Every way to read an object that is not there says NotFound at once, and makes no file."""
    objects.put_bytes("a/b", b"")
    for key in ("a/c", "a", "nothing/there"):
        assert not objects.exists(key)
        for read in (objects.get_bytes, objects.stream, objects.size):
            with pytest.raises(NotFound, match=key):
                read(key)
        with pytest.raises(NotFound):
            objects.get_ranges(key, [(0, 1)])
        with pytest.raises(NotFound):
            objects.get_file(key, tmp_path / "copy")
    assert objects.exists("a/b")
    assert not (tmp_path / "copy").exists()


def test_list_and_delete(objects: Storage) -> None:
    """A prefix is a folder: it holds its subfolders and not its neighbours; what is not there can be deleted."""
    keys = ["job/1/a", "job/1/b/c", "job/1/b/d", "job/10/a", "job/1.png"]
    for key in keys:
        objects.put_bytes(key, b"x")
    assert sorted(objects.list("job/1")) == keys[:3]
    assert list(objects.list("job/2")) == []
    objects.delete(["job/1/a", "job/1/nothing", "job/2/a"])
    assert sorted(objects.list("job")) == sorted(keys[1:])
    objects.delete_prefix("job/1")
    objects.delete_prefix("job/2")
    objects.delete([])
    assert sorted(objects.list("job")) == ["job/1.png", "job/10/a"]


def test_pages(objects: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing comes in pages that say when each object was stored, however old its file was; it may be deleted meanwhile."""
    monkeypatch.setattr("app.storage.PAGE", 10)
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (0, 0))
    began = time.time()
    objects.put_file("a/old", tmp_path / "old")
    for number in range(25):
        objects.put_bytes(f"a/{number}", b"")
    listed: list[str] = []
    for page in objects.pages("a"):
        assert len(page) <= 10
        assert all(began - 2 < item.modified < time.time() + 2 for item in page)  # S3 counts whole seconds
        objects.delete(item.key for item in page)
        listed += [item.key for item in page]
    assert sorted(listed) == sorted(["a/old", *(f"a/{number}" for number in range(25))])
    assert list(objects.pages("a")) == []


def test_many_objects(objects: Storage) -> None:
    """Listing and deleting go on past a page."""
    for number in range(1100):
        objects.put_bytes(f"many/{number}", b"")
    assert len(list(objects.list("many"))) == 1100
    objects.delete_prefix("many")
    assert list(objects.list("many")) == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a b", "a\\b", "ä", "a#1", "a\n", "a" * 256]
)
def test_malformed_keys(objects: Storage, tmp_path: Path, key: str) -> None:
    """A key that could leave the folder or mean different things to different stores is refused by every method."""
    (tmp_path / "file").write_bytes(b"x")
    for use in (objects.get_bytes, objects.stream, objects.size, objects.exists, objects.local_path):
        with pytest.raises(ValueError, match="not a storage key"):
            use(key)
    for put in (lambda: objects.put_bytes(key, b"x"), lambda: objects.put_file(key, tmp_path / "file")):
        with pytest.raises(ValueError, match="not a storage key"):
            put()
    for delete in (lambda: objects.delete([key]), lambda: objects.delete_prefix(key)):
        with pytest.raises(ValueError, match="not a storage key"):
            delete()


def test_reader_sees_whole_objects(objects: Storage) -> None:
    """While many writers replace an object, whoever reads it gets one of the written versions whole."""
    versions = [bytes([number]) * (300_000 + number) for number in range(4)]
    objects.put_bytes("a", versions[0])
    writers = [
        threading.Thread(target=lambda data=data: [objects.put_bytes("a", data) for _ in range(8)]) for data in versions
    ]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers) or not seen:
        assert objects.get_bytes("a") in versions
        seen += 1
    for writer in writers:
        writer.join()
    assert list(objects.list("a")) == []


def test_concurrent_puts(objects: Storage) -> None:
    """Threads share a storage: each of their objects arrives."""
    keys = [f"all/{number}/object" for number in range(24)]
    threads = [threading.Thread(target=objects.put_bytes, args=(key, key.encode())) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: objects.get_bytes(key) for key in keys} == {key: key.encode() for key in keys}


def test_ping(objects: Storage) -> None:
    """A storage that answers is pinged without a sound, also an empty one."""
    objects.ping()


GROWTH = """
import resource, sys
from pathlib import Path
from app.storage import Storage

storage = Storage(sys.argv[1])
folder = Path(sys.argv[2])
storage.put_bytes("warm", b"x" * 1_000_000)
storage.get_file("warm", folder / "warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage.put_file("big", folder / "big")
storage.get_file("big", folder / "copy")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_flat_memory(any_storage_url: str, tmp_path: Path) -> None:
    """A file passes through in parts: memory grows by less than half of it."""
    (tmp_path / "big").write_bytes(os.urandom(MIB) * 160)
    run = subprocess.run(
        [sys.executable, "-c", GROWTH, any_storage_url, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(run.stdout) * 1024 < 80 * MIB
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()
