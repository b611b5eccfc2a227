"""The archive: one valid file out of the shards' bytes."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from app import tars
from app.batches import archives
from app.bundles import Bundle
from app.storage import Storage
from app.tables import Batch, BatchShard


def zipped(files: dict[str, bytes]) -> tuple[bytes, int]:
    """A zip, and how many bytes come before its directory."""
    bundle = Bundle()
    for name, data in files.items():
        bundle.add(name, data)
    body = bundle.drain()
    return body + bundle.close(), len(body)


def stored(storage: Storage, container: str, shards: list[tuple[bytes, int]]) -> tuple[Batch, list[BatchShard]]:
    """A batch of these shards (the bytes, and how many of them are body)."""
    rows = []
    for index, (data, body) in enumerate(shards):
        storage.put_bytes(f"b/{index}", data)
        rows.append(BatchShard(index=index, key=f"b/{index}", size=len(data), body=body))
    return Batch(id="batch_1", options={"container": container}), rows


def joined(storage: Storage, parts: list[archives.Piece]) -> bytes:
    """The archive, after a look at whether any part of it is a slice of the whole."""
    size = archives.size(parts)
    whole = b"".join(archives.stream(storage, parts, 0, size))
    assert len(whole) == size
    for start in range(0, size, max(1, size // 23)):
        for end in (start, start + 1, start + 700, size):
            assert b"".join(archives.stream(storage, parts, start, end)) == whole[start : min(end, size)]
    return whole


def test_tars_are_joined(storage: Storage) -> None:
    """Members of all shards stand in one tar, which ends once."""
    bodies = [tars.member(f"{n}.png", bytes(n * 500)) + tars.member(f"{n}.json", b"{}") for n in range(3)]
    batch, shards = stored(storage, "tar", [(body + tars.END, len(body)) for body in bodies])
    whole = joined(storage, archives.pieces(batch, shards, None))
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = archive.getmembers()
        assert [(member.name, member.size) for member in members if member.name.endswith("png")] == [
            ("0.png", 0),
            ("1.png", 500),
            ("2.png", 1000),
        ]
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


@pytest.mark.parametrize("container", ["npz", "parquet"])
def test_what_does_not_join_comes_in_a_tar(storage: Storage, container: str) -> None:
    """The archive of other shards is a tar whose members are the very files."""
    files = [b"one", bytes(range(256)) * 2, b""]
    batch, shards = stored(storage, container, [(data, len(data)) for data in files])
    with tarfile.open(fileobj=io.BytesIO(joined(storage, archives.pieces(batch, shards, None)))) as archive:
        assert archive.getnames() == [f"{index:05d}.{container}" for index in range(3)]
        assert [archive.extractfile(member).read() for member in archive.getmembers()] == files  # type: ignore[union-attr]


def test_zips_are_joined(storage: Storage, tmp_path: Path) -> None:
    """Members of all shards stand in one zip with one directory, and their checksums are right."""
    contents = [{f"{n}-{m}.png": bytes([n, m]) * 100 for m in range(4)} for n in range(3)]
    batch, shards = stored(storage, "zip", [zipped(files) for files in contents])
    archives.write_directory(storage, shards, tmp_path / "directory")
    storage.put_file("b/directory", tmp_path / "directory")
    size = (tmp_path / "directory").stat().st_size
    whole = joined(storage, archives.pieces(batch, shards, {"key": "b/directory", "size": size}))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: data for files in contents for name, data in files.items()
        }


def test_a_zip_beyond_four_gigabytes(storage: Storage, tmp_path: Path) -> None:
    """Members that begin beyond 32 bits, and more members than 16 bits can count, are found where they are."""
    few, _ = zipped({"a.png": b"first"})
    many, body = zipped({f"{n}.png": b"%d" % n for n in range(65_536)})
    hole = 5 * 2**30  # where the first shard's body ends
    _, (first, second) = stored(storage, "zip", [(few, few.index(b"PK\x01\x02")), (many, body)])
    path = tmp_path / "sparse.zip"
    archives.write_directory(_Moved(storage, first, hole), [first, second], tmp_path / "directory")
    with path.open("wb") as file:  # as large as it says, and yet only a hole
        file.write(few)
        file.seek(hole)
        file.write(many[:body])
        file.write((tmp_path / "directory").read_bytes())
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 65_537
        assert archive.read("a.png") == b"first"
        assert archive.read("0.png") == b"0"
        assert archive.read("65535.png") == b"65535"
        assert archive.getinfo("0.png").header_offset == hole
    assert struct.calcsize("<4sQ2H2L4Q") == 56


class _Moved(Storage):
    """A storage where the first shard has a hole before its directory."""

    def __init__(self, storage: Storage, shard: BatchShard, hole: int) -> None:
        super().__init__(storage.url)
        self._shift = (shard.key, hole - shard.body)
        shard.body, shard.size = hole, shard.size + hole - shard.body

    def stream(self, key: str, start: int = 0, end: int | None = None):  # type: ignore[no-untyped-def]
        moved, by = self._shift
        if key == moved:
            return super().stream(key, start - by, None if end is None else end - by)
        return super().stream(key, start, end)
