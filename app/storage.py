"""Object storage by URL: `file:///absolute/folder` and `s3://bucket/prefix`.

An S3 URL takes `?endpoint=http://host:port` (anything that speaks S3) and `?region=`; credentials come from AWS's own variables or
the machine's role. A storage scheme is one entry in `SCHEMES`.

An object is whole or absent: nobody ever reads half a write. Keys are relative paths of letters, digits and `._-`. Errors of the
libraries below become NotFound, StorageFull and Unavailable here and nowhere else.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from app.errors import NotFound, StorageFull, Unavailable
from models.machine import DISK_FULL

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

CHUNK_BYTES = 8 * 1024 * 1024
UPLOADS_AT_ONCE = 2  # parts in flight: with CHUNK_BYTES it bounds the memory of a put
KEY = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
MAX_KEY_LENGTH = 255
PAGE = 1000  # objects
UNFINISHED = re.compile(r".+#[0-9]+")


class Backend(NamedTuple):
    """What a scheme opens: the store and, where objects are local files, the folder that they lie in."""

    store: "ObjectStore"
    folder: Path | None


def open_file(url: SplitResult) -> Backend:
    """A folder of this machine, made when it is missing."""
    if url.netloc not in {"", "localhost"} or not url.path.startswith("/") or url.query:
        raise ValueError(f"a file storage URL is file:///absolute/path, not {url.geturl()!r}")
    folder = Path(unquote(url.path))
    folder.mkdir(parents=True, exist_ok=True)
    return Backend(LocalStore(folder, automatic_cleanup=True), folder)


def open_s3(url: SplitResult) -> Backend:
    """A bucket of S3 or of anything that speaks its protocol."""
    options = dict(parse_qsl(url.query, strict_parsing=bool(url.query)))
    if not url.netloc or options.keys() - {"endpoint", "region"}:
        raise ValueError(f"an S3 storage URL is s3://bucket/prefix?endpoint=...&region=..., not {url.geturl()!r}")
    store = S3Store(
        url.netloc,
        prefix=url.path.strip("/") or None,
        **options,  # type: ignore[arg-type]
        client_options={
            "allow_http": options.get("endpoint", "").startswith("http://"),
            "connect_timeout": timedelta(seconds=3),
            "read_timeout": timedelta(seconds=30),
            "timeout": timedelta(hours=12),  # of a whole transfer, which the other two keep moving
        },
        retry_config={
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=15),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
        },
    )
    return Backend(store, None)


SCHEMES: dict[str, Callable[[SplitResult], Backend]] = {"file": open_file, "s3": open_s3}


class Item(NamedTuple):
    """An object in a listing, and when it was stored: seconds since the epoch, by the store's clock."""

    key: str
    modified: float


class Storage:
    """Objects under one URL. Safe to share between threads.

    Every method raises Unavailable when the store does not answer or refuses us, and ValueError for a malformed key.
    """

    def __init__(self, url: str) -> None:
        """Open `url`; ValueError says what is wrong with it. Nothing is asked of a remote store yet: see `ping`."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(f"a storage URL begins with one of {', '.join(SCHEMES)}, which {url!r} does not")
        self.url = url
        self._store, self._folder = SCHEMES[parts.scheme](parts)

    def put_file(self, key: str, path: Path) -> None:
        """Store a file that nobody will change any more; raises StorageFull.

        On file:// it becomes a second name of the same bytes where the filesystem allows it; to S3 it goes in parts.
        """
        with self._translating(key):
            if self._folder is None:
                obstore.put(self._store, check_key(key), path, chunk_size=CHUNK_BYTES, max_concurrency=UPLOADS_AT_ONCE)
                return
            with replacing(self._folder / check_key(key)) as temporary:
                link_or_copy(path, temporary)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object; raises StorageFull."""
        with self._translating(key):
            if self._folder is None:
                obstore.put(self._store, check_key(key), data)
                return
            with replacing(self._folder / check_key(key)) as temporary:
                temporary.write_bytes(data)

    def get_bytes(self, key: str) -> bytes:
        """The whole of a small object; raises NotFound."""
        with self._translating(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to `path`, which appears only when it is complete; raises NotFound, and StorageFull for our own disk."""
        chunks = self.stream(key)
        with self._translating(key), replacing(path) as temporary, temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def local_path(self, key: str) -> Path | None:
        """Where the object lies (or would lie) as a file that may be read but never written; None for a remote store."""
        check_key(key)
        return None if self._folder is None else self._folder / key

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes [start, end) in chunks of some MiB, `end` at most the size; NotFound comes from this call, not from the iteration.

        `start` must lie inside the object, or be 0.
        """
        with self._translating(key):
            if end is not None:
                result = obstore.get(self._store, check_key(key), options={"range": (start, end)})
            elif start:
                result = obstore.get(self._store, check_key(key), options={"range": {"offset": start}})
            else:
                result = obstore.get(self._store, check_key(key))
        return self._chunks(key, result)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several [start, end) ranges of one object, neighbours fetched together; raises NotFound."""
        if not ranges:
            return []
        starts, ends = zip(*ranges, strict=True)
        with self._translating(key):
            return [bytes(part) for part in obstore.get_ranges(self._store, check_key(key), starts=starts, ends=ends)]

    def size(self, key: str) -> int:
        """Bytes of an object; raises NotFound."""
        with self._translating(key):
            return obstore.head(self._store, check_key(key))["size"]

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def pages(self, prefix: str) -> Iterator[list[Item]]:
        """The objects in the folder `prefix` and its subfolders, in no particular order, at most PAGE at a time.

        They may be deleted while the listing goes on.
        """
        with self._translating(prefix):
            for page in obstore.list(self._store, check_key(prefix), chunk_size=PAGE):
                yield [Item(entry["path"], entry["last_modified"].timestamp()) for entry in page]

    def list(self, prefix: str) -> Iterator[str]:
        """The keys in the folder `prefix` and its subfolders, in no particular order."""
        for page in self.pages(prefix):
            yield from (item.key for item in page)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there count as deleted."""
        wanted = [check_key(key) for key in keys]
        if self._folder is None:
            with self._translating(""):
                obstore.delete(self._store, wanted)
            return
        for key in wanted:
            with self._translating(key):
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue

    def delete_prefix(self, prefix: str) -> None:
        """Delete every object in the folder `prefix` and its subfolders."""
        self.delete(list(self.list(prefix)))

    def clear_unfinished(self, prefix: str, before: float) -> None:
        """Remove what writes into the folder `prefix` left behind that a crash cut off before that time.

        S3 keeps such parts where no listing shows them: a rule of the bucket's has to remove them.
        """
        if self._folder is None:
            return
        with self._translating(prefix):
            for folder, _, names in os.walk(self._folder / check_key(prefix)):
                for path in (Path(folder, name) for name in names if UNFINISHED.fullmatch(name)):
                    with suppress(FileNotFoundError):  # it has become an object, or another process removed it
                        if path.stat().st_mtime < before:
                            path.unlink()

    def ping(self) -> None:
        """Raise Unavailable unless the store answers us."""
        if self._folder is not None and not self._folder.is_dir():  # as when its disk is not mounted
            raise Unavailable("The folder of the object storage is not there.")
        with self._translating(""):
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def _chunks(self, key: str, result: "obstore.GetResult") -> Iterator[bytes]:
        with self._translating(key):
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._translate(error, key) from error

    def _translate(self, error: BaseError | OSError, key: str) -> NotFound | StorageFull | Unavailable:
        reason = str(error).split("\n\nDebug source", 1)[0]
        if isinstance(error, FileNotFoundError) and "<Code>NoSuchBucket</Code>" not in reason:
            return NotFound(f"There is no object {key!r} in the storage.")
        log.warning("storage: %s: %s", key, reason)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return StorageFull("No space is left to store this: free some or add some, then try again.")
        return Unavailable("The object storage does not answer or refuses us; its log entry says why. Try again.")


def check_key(key: str) -> str:
    """Give a well-formed key back; ValueError for any other."""
    if len(key) > MAX_KEY_LENGTH or not KEY.fullmatch(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: it takes the place of `path` when the block ends well and goes away when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # LocalStore leaves names that end in #digits out of its listings, so what a crash leaves behind is never an object.
    temporary = path.with_name(f"{path.name}#{secrets.randbelow(2**63)}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make a file or a folder's entries outlast a power cut: a row that names an object must never outlive it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Give `source` a second name, or copy it where that cannot be (another filesystem, someone else's file)."""
    try:
        os.utime(source)  # both names have one age, and an object's counts from when it was stored
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
