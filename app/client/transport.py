"""How the client talks: retries, errors as exceptions, server-sent events. `app.client` says what about."""

import random
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

ATTEMPTS = 5
CHUNK_BYTES = 1 << 20
PROBE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0
RETRIED_STATUSES = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


class ClientError(Exception):
    """Base of what the client raises."""


class ConnectionFailed(ClientError):
    """No answer came, after several attempts."""


class TimedOut(ClientError):
    """What was waited for did not happen in time."""


class APIError(ClientError):
    """The service answered with an error. `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"HTTP status {status}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """Stable and meant for programs, such as `not_found`."""
        return str(self.problem.get("code", ""))

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The offending parts of the request: each has a JSON pointer and a detail."""
        return list(self.problem.get("errors") or [])


class Transport:
    """One connection pool to one service. Safe to share between threads."""

    def __init__(self, url: str, api_key: str | None, *, timeout_seconds: float) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_seconds = timeout_seconds
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_seconds)

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, *, upload: BinaryIO | None = None, **options: Any) -> httpx.Response:
        """The answer, read whole. A lost connection, 429, 503 and whatever else says Retry-After (such as the 409 while the same
        Idempotency-Key is under way) are tried again, so the request must be one that may be repeated.

        `upload` is rewound before each attempt. Raises APIError for any other error answer, ConnectionFailed when none came.
        """
        for attempt in range(1, ATTEMPTS + 1):
            if upload is not None:
                upload.seek(0)
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise ConnectionFailed(f"No answer from {self._http.base_url}: {error}") from error
                time.sleep(pause_seconds(attempt))
                continue
            if not asks_again(response) or attempt == ATTEMPTS:
                return checked(response)
            time.sleep(retry_after(response, attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds, asked once."""
        try:
            return self._http.get(path, timeout=PROBE_SECONDS).is_success
        except httpx.TransportError:
            return False

    def stream(self, path: str, *, chunk_bytes: int, **options: Any) -> Iterator[bytes]:
        """The body of a GET, piece by piece. Raises APIError or ConnectionFailed."""
        try:
            with self._http.stream("GET", path, **options) as response:
                if response.is_error:
                    response.read()
                    checked(response)
                yield from response.iter_bytes(chunk_bytes)
        except httpx.TransportError as error:
            raise ConnectionFailed(f"{self._http.base_url} broke off: {error}") from error

    def save(self, path: str, target: Path) -> Path:
        """Writes the body of a GET to a file, which appears when it is whole. Raises as `stream` does."""
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with partial.open("wb") as file:
                file.writelines(self.stream(path, chunk_bytes=CHUNK_BYTES))
            return partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def messages(self, path: str, *, after: int, silence_seconds: float) -> Iterator["Message"]:
        """The server-sent events of one connection, from the one that follows id `after`.

        Ends when the server closes the stream. Raises APIError, or ConnectionFailed when the connection breaks or
        stays silent for `silence_seconds` (the server sends comments in between).
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._timeout_seconds, read=silence_seconds)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    checked(response)
                yield from parse_messages(response.iter_lines())
        except httpx.TransportError as error:
            raise ConnectionFailed(f"{self._http.base_url} broke off: {error}") from error


@dataclass(frozen=True)
class Message:
    """One server-sent event."""

    id: str
    event: str
    data: str


def parse_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Reads a `text/event-stream` (HTML standard, 9.2.6). A message that the end cuts off is dropped, as the standard says."""
    last_id, event, data = "", "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Message(last_id, event, "\n".join(data))
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            event = value
        elif field == "id":
            last_id = value


def checked(response: httpx.Response) -> httpx.Response:
    """The response itself, or APIError with its problem document."""
    if not response.is_error:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise APIError(response.status_code, problem if isinstance(problem, dict) else {})


def asks_again(response: httpx.Response) -> bool:
    """Whether the same request may be answered otherwise in a moment."""
    return response.status_code in RETRIED_STATUSES or (response.is_error and "Retry-After" in response.headers)


def pause_seconds(attempt: int) -> float:
    """Grows with each attempt, with jitter so that many clients do not come back at once."""
    return min(0.2 * 2.0**attempt, LONGEST_PAUSE_SECONDS) * (0.5 + random.random() / 2)  # noqa: S311 - not a secret


def retry_after(response: httpx.Response, attempt: int) -> float:
    """What the server asks for, in whole seconds, within reason; else our own pause."""
    asked: str = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdecimal() else pause_seconds(attempt)


def without_none(**values: Any) -> dict[str, Any]:
    """Leaves out what was not given, so that the service's defaults hold."""
    return {key: value for key, value in values.items() if value is not None}


def idempotency() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def segment(ref: str) -> str:
    """A ref as one segment of a path."""
    return quote(ref, safe=":@")
