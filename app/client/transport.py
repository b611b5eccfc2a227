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

from app.client.downloads import Download
from app.client.errors import APIError, ConnectionFailed

ATTEMPTS = 5
PROBE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0
RETRIED_STATUSES = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
NOTHING_TO_GO_ON_WITH = {HTTPStatus.GONE, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}


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
                    raise ConnectionFailed(
                        f"No answer from {self._http.base_url} ({error}): is `ganvil up` running there?"
                    ) from error
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

    def save(self, path: str, target: Path) -> Path:
        """Writes the body of a GET to a file, which appears when it is whole and has the sha256 that its ETag says.

        A broken connection is taken up where it broke, for as long as bytes come; so is what an earlier call left. Raises as
        `request` does, and Damaged.
        """
        attempt = 1
        with Download(target) as download:
            while True:
                came, pause = download.size, pause_seconds(attempt)
                try:
                    with self._http.stream("GET", path, headers=download.headers) as response:
                        if not asks_again(response) or attempt == ATTEMPTS:
                            receive(response, download)
                            return download.finish()
                        pause = retry_after(response, attempt)
                except httpx.TransportError as error:
                    if attempt == ATTEMPTS and download.size <= came:
                        raise ConnectionFailed(f"{self._http.base_url} broke off: {error}") from error
                attempt = 1 if download.size > came else attempt + 1
                time.sleep(pause)

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


def receive(response: httpx.Response, download: Download) -> None:
    """Hands on the body of an answer that is not an error. Raises as `checked` does."""
    if response.status_code in NOTHING_TO_GO_ON_WITH:
        download.discard()
    if response.is_error:
        response.read()
    download.take(checked(response))


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
