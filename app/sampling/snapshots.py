"""A snapshot's files on this machine: where they lie, or fetched once into the cache folder, and checked either way."""

import hashlib
from pathlib import Path

from app.errors import Gone, NotFound, Unavailable
from app.registry import SNAPSHOT_FILES, Resolved
from app.storage import Storage

WEIGHTS, MANIFEST = SNAPSHOT_FILES


def local_snapshot(storage: Storage, resolved: Resolved, cache_dir: Path) -> Path:
    """A folder with the two files of the snapshot, whose weights have the right SHA-256.

    Raises Gone when the files are no longer stored, Unavailable when they are damaged or cannot be fetched.
    """
    stored = storage.local_path(f"{resolved.snapshot_key}/{WEIGHTS}")
    if stored is not None:
        _check(stored.parent, resolved)
        return stored.parent
    folder = cache_dir / "snapshots" / resolved.sha256
    if _digest(folder / WEIGHTS) != resolved.sha256:  # not fetched yet, or the disk has damaged it
        _fetch(storage, resolved, folder)
        _check(folder, resolved)
    return folder


def _fetch(storage: Storage, resolved: Resolved, folder: Path) -> None:
    try:
        for name in (MANIFEST, WEIGHTS):  # weights last: that they are there says that both are
            storage.get_file(f"{resolved.snapshot_key}/{name}", folder / name)
    except NotFound as error:
        raise _gone(resolved) from error


def _check(folder: Path, resolved: Resolved) -> None:
    digest = _digest(folder / WEIGHTS)
    if digest is None or not (folder / MANIFEST).exists():
        raise _gone(resolved)
    if digest != resolved.sha256:
        detail = f"The stored file of {resolved.label} is damaged (its SHA-256 is not the one on record): restore or delete it."
        raise Unavailable(detail)


def _digest(path: Path) -> str | None:
    """Hexadecimal SHA-256; None when there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _gone(resolved: Resolved) -> Gone:
    return Gone(f"The files of {resolved.label} are no longer in the storage.")
