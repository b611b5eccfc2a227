"""Connections whose other end is slow, or speaks no HTTP: uvicorn itself bounds only the silence between requests."""

import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.http.problems import new_request_id, problem

HEADERS_SECONDS = 20.0  # for the head of a request, from its first byte; for the first one from the connection on
UNREAD_SECONDS = 60.0  # for an answer that the other end does not take
# Of an answer, in the kernel: of its own accord that takes megabytes, and then for long nobody sees any of it taken.
UNSENT_BYTES = 2**17
MAX_HEAD_BYTES = 64 * 1024  # of a request line and its headers
LINGER_SECONDS = 2.0  # in which what comes after a refusal is thrown away: a reset might overtake the answer
MAX_INSTANCE = 400  # bytes of an address that a refusal repeats
DETAILS = {
    400: "This is not a valid HTTP/1.1 request (RFC 9112): look at its request line, its headers and its chunks.",
    431: f"The request line and the headers may have {MAX_HEAD_BYTES} bytes together: send less.",
}


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection that takes too long or too many bytes to say what it wants, or too long to take what it is given.

    Each costs a file descriptor, a head the memory that it fills before any key is looked at, and an unread answer the same:
    whoever opens thousands would shut others out, without a key. The body's own pace and size are `BodyLimit`'s to bound.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = b""  # of the request that is being read
        self._head: TimerHandle | None = None
        self._unread: TimerHandle | None = None
        self._linger: TimerHandle | None = None
        self._read = 0  # bytes that came last
        self._since = 0  # bytes that came since a head was complete, or some of a body
        self._too_large = False
        self._refused = False
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "break_off": transport.abort}  # for an answer that cannot be completed
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):  # it is no TCP
                own = transport.get_extra_info("socket")
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._read = len(data)
        self._since += self._read
        super().data_received(data)
        if self._since > MAX_HEAD_BYTES and not self._refused:  # a head without an end, or what may follow a last chunk
            self._refuse(431)

    def on_headers_complete(self) -> None:
        _cancel(self._head)
        if (self._since > MAX_HEAD_BYTES or self._read > MAX_HEAD_BYTES) and self._head_bytes() > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # the parser stops here, and `send_400_response` is called
        self._since = 0
        super().on_headers_complete()
        self.headers = []  # the scope has its own: what may follow a last chunk is no header of it

    def on_body(self, body: bytes) -> None:
        self._since = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # says no more than that it is invalid
        self._refuse(431 if self._too_large else 400)

    def _refuse(self, status: int) -> None:
        """Answers what cannot be read, in its turn, as every other error is answered; nothing more is read."""
        self._refused = True
        _cancel(self._head)
        cycle = self.cycle

        def send() -> None:
            self._send_refusal(status)

        if cycle is None or cycle.response_complete:
            send()
        elif self.pipeline or not cycle.more_body:  # others are answered first
            if cycle.more_body:
                self.pipeline.popleft()  # it is the request that cannot be read
            self.pipeline.appendleft((_Refusal(send), self.app))  # type: ignore[arg-type]
        else:  # the body of the one that is being answered
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
            else:
                send()

    def _send_refusal(self, status: int) -> None:
        request_id = new_request_id()
        path = self.url.partition(b"?")[0][:MAX_INSTANCE].decode("ascii", "replace")
        scope = {"path": path, "state": {"request_id": request_id}}
        title = HTTPStatus(status).phrase.capitalize()
        answer = problem(
            scope, status=status, code=title.lower().replace(" ", "_"), title=title, detail=DETAILS[status]
        )
        headers = [*answer.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        self._unset_keepalive_if_required()
        self.transport.write(
            STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n" + bytes(answer.body)
        )
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._linger = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _head_bytes(self) -> int:
        """Of the head that is complete now."""
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._unread)
        _cancel(self._linger)
        # With pipelined requests it is not the newest one, of which alone uvicorn thinks.
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle if isinstance(cycle, RequestResponseCycle) else None
        super()._start_asgi_task(cycle, app)

    def _await_head(self) -> None:
        _cancel(self._head)
        self._head = self.loop.call_later(HEADERS_SECONDS, self.transport.abort)


class _Refusal:
    """Waits among pipelined requests for its turn."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send

    async def run_asgi(self, _app: object) -> None:
        self._send()


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
