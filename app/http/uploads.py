"""A multipart upload, streamed to a file on the disk that holds the service's data.

Starlette's own parser spools to the system's temporary folder, often a small or memory-backed one, and the file would be copied
from there. Here it lands beside the object store, which can then take it over without copying, and is hashed on its way.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from app.errors import FieldError, Invalid, StorageFull
from app.settings import Settings
from models.catalog import escaped
from models.machine import DISK_FULL

FILE_FIELD = "file"
PREFIX = "upload-"
FIELD_LIMIT_BYTES = 4096
WRITE_BYTES = 2**20  # what is gathered before a thread writes it
STALE_SECONDS = 86_400


def incoming(settings: Settings) -> Path:
    """Where uploads land: on the disk of the data, so that a file:// store takes them over without a copy."""
    return settings.data_dir.resolve() / "incoming"


@dataclass
class Upload:
    """A file that arrived whole at `path`, and the form's other fields. The file goes away with the request."""

    path: Path
    filename: str
    size: int
    sha256: str
    fields: dict[str, str]


@asynccontextmanager
async def receive_upload(request: Request, folder: Path, fields: frozenset[str]) -> AsyncIterator[Upload]:
    """Receive a form of one `file` and at most the given text fields.

    Raises Invalid for another form, a broken one, or one that ends early; StorageFull when the disk is full.
    """
    boundary = _boundary(request)
    with _full_disk_refused(), _temporary_file(folder) as (file, path):
        form = _Form(file, fields)
        try:
            await _feed(request, form, boundary)
        except ClientDisconnect as error:
            raise Invalid("The upload ended before it was complete.") from error
        except FormParserError as error:
            raise Invalid(f"The form cannot be read: {error}.") from error
        yield form.upload(path)


@contextmanager
def _temporary_file(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Unlike tempfile's own, it goes away at once even when its last bytes find the disk full as it is closed."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=PREFIX)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path
    finally:
        path.unlink()


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        detail = "Send the file as multipart/form-data, in a part named 'file'."
        raise Invalid(detail, errors=[FieldError("#/file", "missing")])
    return options[b"boundary"]


async def _feed(request: Request, form: "_Form", boundary: bytes) -> None:
    parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= WRITE_BYTES:
            await run_in_threadpool(parser.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(parser.write, bytes(waiting))
    await run_in_threadpool(form.finish)


@dataclass
class _Form:
    """What the parser's callbacks write to: file bytes to disk, fields to memory within limits."""

    file: IO[bytes]
    allowed: frozenset[str]
    fields: dict[str, bytearray] = field(default_factory=dict)
    filename: str | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._part = ""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_part,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_end": self._end,
        }

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in self.allowed | {FILE_FIELD}:
            known = f" and may have {', '.join(sorted(self.allowed))}" if self.allowed else " alone"
            raise _invalid(name[:100], f"unknown; the form has {FILE_FIELD}{known}")
        if name in self.fields or (name == FILE_FIELD and self.filename is not None):
            raise _invalid(name, "given twice")
        self._part = name
        if name == FILE_FIELD:
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or "upload"
        else:
            self.fields[name] = bytearray()

    def _take(self, data: bytes) -> None:
        if self._part == FILE_FIELD:
            self._digest.update(data)
            self._size += len(data)
            self.file.write(data)
            return
        value = self.fields[self._part]
        value += data
        if len(value) > FIELD_LIMIT_BYTES:
            raise _invalid(self._part, f"longer than {FIELD_LIMIT_BYTES} bytes")

    def _end(self) -> None:
        self.ended = True

    def finish(self) -> None:
        if not self.ended:
            raise Invalid("The form ends before its closing boundary: send it again, whole.")
        if self.filename is None:
            raise _invalid(FILE_FIELD, "missing")
        self.file.flush()

    def upload(self, path: Path) -> Upload:
        fields = {name: value.decode("utf-8", "replace") for name, value in self.fields.items()}
        return Upload(path, self.filename or "", self._size, self._digest.hexdigest(), fields)


def _invalid(name: str, detail: str) -> Invalid:
    return Invalid(f"The form's field {name!r} is {detail}.", errors=[FieldError(f"#/{escaped(name)}", detail)])


@contextmanager
def _full_disk_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFull("No space is left to receive this upload: free some, then send it again.") from error
        raise


def clear_stale(folder: Path) -> None:
    """Remove what uploads left behind that a crash cut off, by age: other processes receive into the same folder."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                path.unlink()
