"""What each storage scheme promises besides the contract: a folder's disk, a bucket's network, the form of a URL."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.storage import Storage
from tests.s3 import BUCKET, CREDENTIALS


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "objects").as_uri())


FULL_DISK = """
import resource, sys
from pathlib import Path
from app.errors import StorageFull
from app.storage import Storage

storage = Storage(sys.argv[1])
folder = Path(sys.argv[2])
# To a program, a limit on its files feels like a full disk: the write stops half way.
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for attempt in (
    lambda: storage.put_bytes("new/bytes", b"x" * 2_000_000),
    lambda: storage.put_file("new/file", Path(sys.argv[3])),
    lambda: storage.get_file("old", folder / "copy"),
):
    try:
        attempt()
    except StorageFull as error:
        print(error.detail)
"""


def test_full_disk(folder: Storage, tmp_path: Path) -> None:
    """What no longer fits is refused with StorageFull, and nothing of it stays."""
    folder.put_bytes("old", b"x" * 2_000_000)
    # Memory and disk are two filesystems, so that the file has to be copied.
    elsewhere = Path("/dev/shm") / f"ganvil-test-{os.getpid()}"
    elsewhere.write_bytes(b"x" * 2_000_000)
    try:
        command = [sys.executable, "-c", FULL_DISK, folder.url, str(tmp_path), str(elsewhere)]
        run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    finally:
        elsewhere.unlink()
    assert run.stdout.count("No space is left") == 3
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old"]
    assert folder.size("old") == 2_000_000


def test_file_is_taken_over(folder: Storage, tmp_path: Path) -> None:
    """Putting a file into a folder on the same disk copies nothing, and outlasts the file's own name."""
    source = tmp_path / "source"
    source.write_bytes(b"data")
    folder.put_file("a/b", source)
    path = folder.local_path("a/b")
    assert path is not None
    assert path.stat().st_ino == source.stat().st_ino
    source.unlink()
    assert folder.get_bytes("a/b") == b"data"


def test_remains_of_a_crash_are_no_objects(folder: Storage) -> None:
    """The half of a write that a crash cut off is neither listed nor in the way."""
    folder.put_bytes("a/b", b"whole")
    path = folder.local_path("a/b")
    assert path is not None
    path.with_name("c#7493").write_bytes(b"ha")
    assert list(folder.list("a")) == ["a/b"]
    folder.put_bytes("a/c", b"half")
    assert folder.get_bytes("a/c") == b"half"


def test_remains_of_a_crash_go(folder: Storage, tmp_path: Path) -> None:
    """The half of a write that a crash cut off is cleared once it is old; neither objects nor a write under way are."""
    folder.put_bytes("a/b/object", b"whole")
    for name in ("object", "c#1", "c#2", "d#e"):
        path = tmp_path / "objects" / "a" / "b" / name
        path.write_bytes(b"ha")
        os.utime(path, (1000.0, 1000.0))
    os.utime(tmp_path / "objects" / "a" / "b" / "c#2", (3000.0, 3000.0))
    folder.clear_unfinished("a", before=2000.0)
    folder.clear_unfinished("nothing", before=2000.0)
    assert sorted(path.name for path in (tmp_path / "objects" / "a" / "b").iterdir()) == ["c#2", "d#e", "object"]


def test_empty_folders_go(folder: Storage, tmp_path: Path) -> None:
    """A folder that a deletion emptied goes away, and comes back when it is needed."""
    folder.put_bytes("a/b/c", b"")
    folder.delete_prefix("a")
    assert list((tmp_path / "objects").iterdir()) == []
    folder.put_bytes("a/b/c", b"")
    assert folder.exists("a/b/c")


def test_missing_folder(folder: Storage, tmp_path: Path) -> None:
    """A folder that went away, as an unmounted disk does, is noticed."""
    (tmp_path / "objects").rmdir()
    with pytest.raises(Unavailable):
        folder.ping()


def test_folder_with_an_awkward_name(tmp_path: Path) -> None:
    """Any folder can be written as a URL."""
    place = tmp_path / "my data #1 100% ä?"
    Storage(place.as_uri()).put_bytes("a", b"x")
    assert (place / "a").read_bytes() == b"x"


def test_s3_has_no_local_files(endpoint: str) -> None:
    """An object in a bucket has no path."""
    assert Storage(f"s3://{BUCKET}?endpoint={endpoint}&region=us-east-1").local_path("a") is None


def test_unreachable_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is Unavailable, within seconds, and no file appears."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    storage = Storage("s3://ganvil?endpoint=http://127.0.0.1:9&region=us-east-1")
    (tmp_path / "file").write_bytes(b"x")
    began = time.monotonic()
    for use in (
        storage.ping,
        lambda: storage.get_bytes("a"),
        lambda: storage.put_bytes("a", b""),
        lambda: storage.put_file("a", tmp_path / "file"),
        lambda: storage.get_file("a", tmp_path / "copy"),
        lambda: storage.delete(["a"]),
    ):
        with pytest.raises(Unavailable):
            use()
    assert time.monotonic() - began < 30
    assert not (tmp_path / "copy").exists()


def test_missing_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is not there is the operator's mistake, not a missing object."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    storage = Storage(f"s3://elsewhere?endpoint={endpoint}&region=us-east-1")
    for use in (storage.ping, lambda: storage.get_bytes("a"), lambda: storage.put_bytes("a", b"")):
        with pytest.raises(Unavailable):
            use()


@pytest.mark.parametrize(
    "url",
    [
        "objects",
        "ftp://host/folder",
        "file://objects",
        "file:relative",
        "file:///folder?x=1",
        "s3:///prefix",
        "s3://bucket?secret=1",
        "s3://bucket?endpoint",
    ],
)
def test_malformed_urls(url: str) -> None:
    """A URL that names no storage is refused when it is read, with what it should look like."""
    with pytest.raises(ValueError, match=r"storage URL|bad query field"):
        Storage(url)
