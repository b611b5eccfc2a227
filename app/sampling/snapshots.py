"""A snapshot's files on this machine: where they lie, or fetched for as long as they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.errors import Gone, NotFound
from app.registry import SNAPSHOT_FILES, Resolved
from app.storage import Storage


@contextmanager
def snapshot_folder(storage: Storage, resolved: Resolved) -> Iterator[Path]:
    """A folder with the files of the snapshot, to be read in this context only; whoever loads them checks them.

    Raises Gone when the files are no longer stored, Unavailable when they cannot be fetched.
    """
    stored = storage.local_path(resolved.snapshot_key)
    if stored is not None:
        if not all((stored / name).exists() for name in SNAPSHOT_FILES):
            raise _gone(resolved)
        yield stored
        return
    with TemporaryDirectory(prefix="ganvil-snapshot-") as name:
        folder = Path(name)
        _fetch(storage, resolved, folder)
        yield folder


def _fetch(storage: Storage, resolved: Resolved, folder: Path) -> None:
    try:
        for name in SNAPSHOT_FILES:
            storage.get_file(f"{resolved.snapshot_key}/{name}", folder / name)
    except NotFound as error:
        raise _gone(resolved) from error


def _gone(resolved: Resolved) -> Gone:
    return Gone(f"The files of {resolved.label} are no longer in the storage.")
