"""Asks for generations, and reads what is answered."""

import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.parser import BytesParser
from typing import Any

import numpy as np
from httpx import Client, Response
from PIL import Image

JSON, LINES, MIXED = "application/json", "application/x-ndjson", "multipart/mixed"
ZIP, NPZ, RAW = "application/zip", "application/x-npz", "application/octet-stream"
LIMIT = 200  # of samples in one answer


def ask(client: Client, accept: str = JSON, **body: Any) -> Response:
    content = json.dumps({"model": "cats"} | body)  # NaN goes through, as many clients write it
    headers = {"Accept": accept, "Content-Type": JSON}
    return client.post("/v1/generations", content=content, headers=headers)


def written(accept: str = JSON, **body: Any) -> bytes:
    """The same, for a socket."""
    content = json.dumps({"model": "cats"} | body)
    return (
        f"POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {JSON}\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


@contextmanager
def unread(client: Client, request: bytes) -> Iterator[socket.socket]:
    """A connection on which this was asked, whose answer nobody reads: the kernel takes less than 64 KiB of it, on either side."""
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # the sender's buffer grows with it
        connection.connect((client.base_url.host, client.base_url.port))
        connection.sendall(request)
        yield connection


def given(client: Client, accept: str = JSON, **body: Any) -> Response:
    answer = ask(client, accept, **body)
    assert answer.status_code == 200, answer.text
    return answer


def refused(answer: Response, pointer: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert len(answer.content) < 4000
    return answer.json()["detail"]


def alone(client: Client, seed: int, kind: str = "png", model: str = "cats", **query: Any) -> bytes:
    answer = client.get(f"/v1/models/{model}:1/samples/{seed}.{kind}", params=query)
    assert answer.status_code == 200
    return answer.content


def lines_of(answer: Response) -> list[dict[str, Any]]:
    assert answer.content.endswith(b"\n")
    return [json.loads(line) for line in answer.content.splitlines()]


def parts_of(answer: Response) -> list[tuple[Message, bytes]]:
    """The headers of each part, and its bytes, which the email package would take for text."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    assert message.is_multipart()
    assert not message.defects
    boundary = b"--" + answer.headers["content-type"].partition("boundary=")[2].encode()
    bodies = [piece.partition(b"\r\n\r\n")[2] for piece in answer.content.split(boundary)[1:-1]]
    assert all(body.endswith(b"\r\n") for body in bodies)
    return list(zip(message.get_payload(), [body[:-2] for body in bodies], strict=True))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))
