"""Open-loop load: a request leaves at its time whether or not earlier ones have been answered, as those of many clients do.

Latency counts from the time at which a request should have left, so a server that stalls cannot hide it by keeping the load away
(coordinated omission). wrk knows no such load, and the tools that do are no package of Debian's. One thread sends, for its sleep
is exact to a tenth of a millisecond; another reads. Plain sockets: a few thousand requests a second are within reach.
"""

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 65536
DRAIN_SECONDS = 30  # for the last answers
LINGER_SECONDS = 0.1


@dataclass(frozen=True)
class Answer:
    """`late` is how much after its time the request left, `latency` from that time to the answer's last byte; seconds."""

    status: int
    late: float
    latency: float
    retry_after: bool


@dataclass(eq=False)
class Connection:
    """`number` is that of the request under way, None while it is idle; `answers` are those that came before."""

    socket: socket.socket
    number: int | None = None
    due: float = 0.0
    left: float = 0.0
    answers: int = 0
    received: bytearray = field(default_factory=bytearray)


class Arrivals:
    """`rate` requests a second for `seconds`, the k-th of which is `request(k)`, over at most `connections` that are opened as needed."""

    def __init__(
        self, port: int, request: Callable[[int], bytes], *, rate: float, seconds: float, connections: int
    ) -> None:
        self.total = int(rate * seconds)
        self.answers: list[Answer] = []
        self.broken = 0  # connections that ended before the answer
        self._port, self._request, self._interval, self._most = port, request, 1 / rate, connections
        self._idle: list[Connection] = []
        self._backlog: deque[tuple[int, float]] = deque()  # requests whose time has come when every connection was busy
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._sent_all = threading.Event()

    @property
    def unanswered(self) -> int:
        return self.total - len(self.answers) - self.broken

    def run(self) -> "Arrivals":
        reader = threading.Thread(target=self._read_all)
        reader.start()
        try:
            self._leave_all(time.perf_counter() + LINGER_SECONDS)
        finally:
            self._sent_all.set()
            reader.join()
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()
        return self

    def _leave_all(self, begun: float) -> None:
        for number in range(self.total):
            due = begun + number * self._interval
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            self._leave(number, due)

    def _leave(self, number: int, due: float) -> None:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            if connection is not None:
                connection.number = number  # no longer idle, should it end now
                connection.due = due
            elif len(self._connections) >= self._most:
                self._backlog.append((number, due))
                return
        self._send(connection or self._open(), number, due)

    def _open(self) -> Connection:
        opened = socket.create_connection(("127.0.0.1", self._port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(opened)
        with self._lock:
            self._connections[opened.fileno()] = connection
        self._epoll.register(opened.fileno(), select.EPOLLIN)
        return connection

    def _send(self, connection: Connection, number: int, due: float) -> None:
        connection.number, connection.due, connection.left = number, due, time.perf_counter()
        connection.received.clear()
        try:
            connection.socket.sendall(self._request(number))
        except OSError:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        """A server may end a connection that was idle for long; a request that met this end goes out again, as clients do."""
        with self._lock:
            if self._connections.pop(connection.socket.fileno(), None) is None:
                return  # the other thread has seen it too
            connection.socket.close()
            if connection.number is None:
                self._idle.remove(connection)
                return
            stale = connection.answers > 0 and not connection.received
            self.broken += not stale
        if stale:
            try:
                fresh = self._open()
            except OSError:  # nobody listens any more
                self.broken += 1
            else:
                self._send(fresh, connection.number, connection.due)

    def _read_all(self) -> None:
        give_up = None
        while True:
            if self._sent_all.is_set():
                give_up = give_up or time.monotonic() + DRAIN_SECONDS
                if self.unanswered <= 0 or time.monotonic() > give_up:
                    return
            for descriptor, _ in self._epoll.poll(LINGER_SECONDS):
                with self._lock:
                    connection = self._connections.get(descriptor)
                if connection is not None:
                    self._read(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:  # its descriptor was another's when it became ready
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        if (head := whole(connection.received)) is not None:
            now = time.perf_counter()
            self.answers.append(
                Answer(
                    status=int(head[9:12]),
                    late=connection.left - connection.due,
                    latency=now - connection.due,
                    retry_after=b"\r\nretry-after:" in head,
                )
            )
            self._free(connection)

    def _free(self, connection: Connection) -> None:
        connection.answers += 1
        with self._lock:
            if not self._backlog:
                connection.number = None
                self._idle.append(connection)
                return
            number, due = self._backlog.popleft()
        self._send(connection, number, due)


def whole(received: bytes | bytearray) -> bytes | None:
    """The head of an answer, in lower case, once the answer is complete; it has a Content-Length."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[: end + 2]).lower()
    _, _, rest = head.partition(b"\r\ncontent-length:")
    length = int(rest.partition(b"\r\n")[0]) if rest else 0
    return head if len(received) >= end + 4 + length else None
