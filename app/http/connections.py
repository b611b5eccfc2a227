"""Connections whose other end is slow, or speaks no HTTP: uvicorn itself bounds only the silence between requests."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.http.problems import new_request_id, problem

HEADERS_SECONDS = 20.0  # for the head of a request, from its first byte; for the first one from the connection on
UNREAD_SECONDS = 60.0  # for an answer that the other end does not take


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection that takes too long to say what it wants, or to take what it is given.

    Each costs a file descriptor, and an unread answer the memory that it fills: whoever opens thousands would shut others out,
    without a key. The body's own pace is `BodyLimit`'s to bound.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = b""  # of the request that is being read
        self._head: TimerHandle | None = None
        self._unread: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        _cancel(self._head)
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # says no more than that it is invalid
        """Answers what cannot be parsed as every other error is answered: with a problem."""
        request_id = new_request_id()
        scope = {"path": self.url.partition(b"?")[0].decode("ascii", "replace"), "state": {"request_id": request_id}}
        detail = (
            "This is not a valid HTTP/1.1 request (RFC 9112): look at its request line, its headers and its chunks."
        )
        answer = problem(scope, status=400, code="bad_request", title="Bad request", detail=detail)
        headers = [*answer.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        self.transport.write(
            STATUS_LINE[400] + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n" + bytes(answer.body)
        )
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._unread)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        _cancel(self._head)
        self._head = self.loop.call_later(HEADERS_SECONDS, self.transport.abort)


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
