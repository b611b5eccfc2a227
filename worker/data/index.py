"""The members of an archive as a table on disk, so that memory does not grow with their number.

SQLite sorts, joins and finds duplicates in a few megabytes. The file is scratch: no journal, one transaction that never ends.
"""

import posixpath
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from worker.data.members import DataError, Member, Method, quote

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"}
METADATA_NAMES = {"metadata.csv", "metadata.jsonl"}
CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}
NOT_AN_IMAGE = "not an image, by its name"

SCHEMA = """
CREATE TABLE members (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, start INTEGER NOT NULL, stored INTEGER NOT NULL, size INTEGER NOT NULL,
    method INTEGER NOT NULL, crc INTEGER NOT NULL, kind TEXT NOT NULL, class TEXT, skipped TEXT, corrupt INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE labels (path TEXT PRIMARY KEY, class TEXT, line INTEGER NOT NULL);
"""
MEMBER = "path, start, stored, size, method, crc"


class Index:
    """Rows of `members`: `kind` is image, metadata, array, other or clutter; `skipped` says why an image is not used."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8192; BEGIN;" + SCHEMA
        )
        self.db.create_function("natural_key", 1, natural_key, deterministic=True)
        self.db.create_function("class_key", 1, lru_cache(natural_key), deterministic=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def add(self, member: Member, kind: str, label: str | None = None) -> None:
        """Raises DataError `duplicate_member` when the path is there already."""
        try:
            self.db.execute(
                f"INSERT INTO members ({MEMBER}, kind, class) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                (*member, kind, label),
            )
        except sqlite3.IntegrityError as error:
            raise DataError(
                "duplicate_member",
                f"the archive has two members of the name {quote(member.path)}. Pack the folder again.",
            ) from error

    def check_overlaps(self) -> None:
        """Raises DataError `overlapping_members`: bytes that serve several members are how small archives unpack to a lot."""
        row = self.db.execute(
            "SELECT path FROM (SELECT path, start, LAG(start + stored) OVER (ORDER BY start, id) AS before FROM members)"
            " WHERE start < before LIMIT 1"
        ).fetchone()
        if row:
            raise DataError(
                "overlapping_members",
                f"{quote(row[0])} shares its bytes with another member, as in a bomb. Pack the folder again.",
            )

    def one(self, query: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        row = self.db.execute(query, values).fetchone()
        return row and row[0]

    def count_images(self) -> int:
        """Images that are used, corrupt ones included."""
        return int(self.one("SELECT count(*) FROM members WHERE kind = 'image' AND (skipped IS NULL OR corrupt)"))

    def count_skipped(self) -> int:
        """All that `skipped` would list."""
        return int(self.one("SELECT count(*) FROM members WHERE skipped IS NOT NULL OR kind = 'other'"))

    def image_paths(self) -> Iterator[str]:
        return (path for (path,) in self.db.execute("SELECT path FROM members WHERE kind = 'image' ORDER BY id"))

    def members_of(self, kind: str) -> Iterator[Member]:
        """By path."""
        query = f"SELECT {MEMBER} FROM members WHERE kind = ? ORDER BY path"  # noqa: S608
        return (_member(row) for row in self.db.execute(query, (kind,)))

    def classify(self, class_of: Callable[[str], str | None], skip_reason: Callable[[str], str | None]) -> None:
        """Set the class of every image, or the reason to skip it, by its path."""
        self.db.create_function("class_of", 1, class_of, deterministic=True)
        self.db.create_function("skip_reason", 1, skip_reason, deterministic=True)
        self.db.execute("UPDATE members SET class = class_of(path), skipped = skip_reason(path) WHERE kind = 'image'")

    def classes(self) -> Iterator[str]:
        """Classes of the images in use, in no order and of any length."""
        query = "SELECT DISTINCT class FROM members WHERE kind = 'image' AND skipped IS NULL AND class IS NOT NULL"
        return (name for (name,) in self.db.execute(query))

    def class_names(self) -> list[str]:
        """The same in natural order, the order of labels; once worker.data.layout.check_labels found them short and few."""
        return sorted(self.classes(), key=natural_key)

    def class_counts(self) -> list[int]:
        """How many images in use each class has, in no order."""
        query = (
            "SELECT count(*) FROM members WHERE kind = 'image' AND skipped IS NULL AND class IS NOT NULL GROUP BY class"
        )
        return [count for (count,) in self.db.execute(query)]

    def images(self) -> Iterator[tuple[int, str | None, Member]]:
        """(id, class, member) of the sound images in use, ordered by class (none first) and path, naturally: the order of examples."""
        query = (
            f"SELECT id, class, {MEMBER} FROM members WHERE kind = 'image' AND skipped IS NULL"  # noqa: S608
            " ORDER BY class IS NOT NULL, class_key(class), natural_key(path)"
        )
        return ((row[0], row[1], _member(row[2:])) for row in self.db.execute(query))

    def images_as_stored(self) -> Iterator[tuple[int, Member]]:
        """(id, member) of the same images, in the order of the archive."""
        query = f"SELECT id, {MEMBER} FROM members WHERE kind = 'image' AND skipped IS NULL ORDER BY id"  # noqa: S608
        return ((row[0], _member(row[1:])) for row in self.db.execute(query))

    def mark_corrupt(self, bad: Iterable[tuple[int, str]]) -> None:
        """(id, reason) of images that could not be read."""
        self.db.executemany(
            "UPDATE members SET corrupt = 1, skipped = ? WHERE id = ?", ((why, member) for member, why in bad)
        )

    def skipped(self, limit: int) -> list[dict[str, str]]:
        """The first of the members that were not used and why, corrupt images before the rest; clutter is not mentioned."""
        query = (
            "SELECT path, coalesce(skipped, ?) FROM members WHERE skipped IS NOT NULL OR kind = 'other'"
            " ORDER BY corrupt DESC, kind, natural_key(path) LIMIT ?"
        )
        return [{"file": path, "reason": reason} for path, reason in self.db.execute(query, (NOT_AN_IMAGE, limit))]


def kind_of(path: str) -> str:
    """What a member is, by its path alone."""
    parts = path.lower().split("/")
    if any(part.startswith(".") or part in CLUTTER for part in parts):
        return "clutter"
    if parts[-1] in METADATA_NAMES:
        return "metadata"
    suffix = posixpath.splitext(parts[-1])[1]
    if suffix == ".npy":
        return "array"
    return "image" if suffix in IMAGE_SUFFIXES else "other"


def natural_key(text: str | None) -> bytes:
    """Bytes that sort as a person would: img2 before img10. Unlike texts have unlike keys."""
    pieces = re.split(r"([0-9]+)", text or "")
    key = bytearray()
    for number, piece in enumerate(pieces):
        if number % 2:
            digits = piece.lstrip("0").encode()
            key += b"\1" + len(digits).to_bytes(2, "big") + digits
        else:
            key += piece.encode() + b"\0"
    return bytes(key) + b"\0" + (text or "").encode()


def _member(row: tuple[Any, ...]) -> Member:
    path, offset, stored, size, method, crc = row
    return Member(path, offset, stored, size, Method(method), crc)
