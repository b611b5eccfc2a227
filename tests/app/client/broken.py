"""Servers that break off."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx

from app.client import Client

Answer = Callable[[BaseHTTPRequestHandler, int], None]


@contextmanager
def broken_server(answer: Answer) -> Iterator[str]:
    """A server that does what `answer(handler, count)` says with each request; closes the connection after it."""
    count = iter(range(1, 1000))

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer(self, next(count))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, document: object, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(json.dumps(document).encode())


@dataclass
class Way:
    """The way to a service. `cuts` says how many bytes of each answer's body come through, in turn, and None lets all through, as is done afterwards."""

    to: str
    cuts: Iterator[int | None] = field(default_factory=lambda: iter(()))
    spoil: Callable[[bytes], bytes] = bytes
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def __call__(self, handler: BaseHTTPRequestHandler, _: int) -> None:
        names = ("Range", "If-Range")
        self.asked.append((handler.headers["Range"], handler.headers["If-Range"]))
        headers = {name: handler.headers[name] for name in names if handler.headers[name]}
        answer = httpx.get(self.to + handler.path, headers=headers, trust_env=False)
        handler.send_response(answer.status_code)
        for name in ("ETag", "Content-Length", "Content-Range"):
            if name in answer.headers:
                handler.send_header(name, answer.headers[name])
        handler.end_headers()
        handler.wfile.write(self.spoil(answer.content)[: next(self.cuts, None)])

    @contextmanager
    def client(self) -> Iterator[Client]:
        with broken_server(self) as url, Client(url) as client:
            yield client
