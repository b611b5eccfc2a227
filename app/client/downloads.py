"""Files that come in as many goes as it takes, and appear when they are whole and what the service says they are.

The ETag of a download is the file's sha256. What has come stands beside the target as `.NAME.SHA256.RANDOM.part`, so that the name
tells what to go on with. Whoever writes it holds a lock on it; one that nobody holds was left by a download that ended early.
"""

import fcntl
import hashlib
import os
import re
import secrets
from http import HTTPStatus
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from app.client.errors import Damaged

STRONG_TAG = re.compile(r'"([0-9a-f]{64})"')


class Part:
    """What has come of one file, open and locked."""

    def __init__(self, path: Path, sha256: str, file: BufferedRandom) -> None:
        self.path = path
        self.sha256 = sha256
        self._file = file
        self._digest = hashlib.file_digest(file, "sha256")
        self.size = file.tell()

    @classmethod
    def begun(cls, target: Path, sha256: str) -> Self:
        """An empty one for this target."""
        path = target.with_name(f".{target.name}.{sha256}.{secrets.token_hex(4)}.part")
        file = path.open("x+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        return cls(path, sha256, file)

    @classmethod
    def left(cls, target: Path) -> Self | None:
        """One that an earlier download to this target left, without its last byte: so there is always something to ask for."""
        name = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{64}})\.[0-9a-f]{{8}}\.part")
        for path in target.parent.iterdir():
            found = name.fullmatch(path.name)
            if found and (file := _held(path)):
                file.truncate(path.stat().st_size - 1)
                return cls(path, found[1], file)
        return None

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        self._digest.update(data)
        self.size += len(data)

    def is_right(self) -> bool:
        """Whether it is the whole file."""
        return self._digest.hexdigest() == self.sha256

    def become(self, target: Path) -> None:
        self.path.replace(target)
        self.close()

    def discard(self) -> None:
        self.path.unlink()
        self.close()

    def close(self) -> None:
        self._file.close()


class Download:
    """One file on its way to `target`. What has come of it stays when the block ends early."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = Part.left(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None and self._part.size == 0:
            self.discard()
        elif self._part is not None:
            self._part.close()

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._part.size if self._part else 0

    @property
    def headers(self) -> dict[str, str]:
        """Ask for what is missing, or for all of it when the file is another one by now."""
        own = {"Accept-Encoding": "identity"}
        if self._part is None:
            return own
        return own | {"Range": f"bytes={self._part.size}-", "If-Range": f'"{self._part.sha256}"'}

    def take(self, response: httpx.Response) -> None:
        """Writes what comes, behind what there is or in its place."""
        tag = STRONG_TAG.fullmatch(response.headers.get("ETag", ""))
        if tag is None:
            raise Damaged(f"{response.url} has no sha256 as its ETag, to know the file by.")
        goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if self._part is None or not goes_on or self._part.sha256 != tag[1]:
            self.discard()
            self._part = Part.begun(self._target, tag[1])
        for data in response.iter_raw():
            self._part.write(data)

    def finish(self) -> Path:
        """The target, in place. Raises Damaged, and lets go of what came, when that is not the file."""
        assert self._part is not None
        if not self._part.is_right():
            message = (
                f"{self._target} is not written: the sha256 of what came is not {self._part.sha256}. Download it again."
            )
            self.discard()
            raise Damaged(message)
        self._part.become(self._target)
        self._part = None
        return self._target

    def discard(self) -> None:
        """Lets go of what has come."""
        if self._part is not None:
            self._part.discard()
        self._part = None


def _held(path: Path) -> BufferedRandom | None:
    """The file, locked; None when it is empty, not ours to write, held by somebody, or no longer there."""
    try:
        file = path.open("r+b")
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.fstat(file.fileno())
        usable = ours.st_size > 0 and os.path.samestat(ours, path.stat())
    except (BlockingIOError, FileNotFoundError):
        usable = False
    if usable:
        return file
    file.close()
    return None
