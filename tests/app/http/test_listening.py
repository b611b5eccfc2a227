"""Several processes on one port: connections are divided among them, and nobody else is let in."""

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.up.redis_server import free_port
from tests.servers import wait_until

PROCESSES = 2
CONNECTIONS = 40  # that all lie in one process by chance: once in 2**39 times


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    environment = os.environ | {"GANVIL_DATA_DIR": str(folder), "GANVIL_PORT": str(port)}
    command = [sys.executable, "-m", "app", "--processes", str(PROCESSES)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where a service of two processes listens."""
    found = free_port("127.0.0.1")
    with start(tmp_path / "first", found) as service:
        try:
            wait_until(lambda: len(listening(found)) == PROCESSES, seconds=60)
            yield found
        finally:
            service.terminate()
            service.wait(30)


def listening(port: int) -> list[int]:
    """The processes that do, by their ids."""
    return [each.pid for each in psutil.net_connections("tcp4") if each.status == "LISTEN" and each.laddr.port == port]


def test_connections_are_divided(port: int) -> None:
    """Of many that come at once each process takes some, and answers on them."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(CONNECTIONS)]
    try:
        for connection in held:
            connection.sendall(f"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert all(connection.recv(100).startswith(b"HTTP/1.1 200") for connection in held)
        taken = Counter(
            each.pid
            for each in psutil.net_connections("tcp4")
            if each.status == "ESTABLISHED" and each.laddr.port == port
        )
    finally:
        for connection in held:
            connection.close()
    assert taken.keys() == set(listening(port))
    assert taken.total() == CONNECTIONS


def test_a_second_service_is_not_let_in(port: int, tmp_path: Path) -> None:
    """It ends and says why, and the first goes on: sharing a port with a stranger would answer half of the requests wrongly."""
    with start(tmp_path / "second", port) as second:
        said, _ = second.communicate(timeout=60)
    assert second.returncode != 0
    assert "address already in use" in said.lower()
    assert len(listening(port)) == PROCESSES
    assert httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False).status_code == 200
