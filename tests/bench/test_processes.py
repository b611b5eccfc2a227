"""A server as a tree of real processes."""

import sys
from pathlib import Path

import pytest

from app.up.redis_server import free_port
from bench.serving.processes import ServerFailed, running
from tests.servers import wait_until

FORKS = """
import http.server, subprocess, sys
subprocess.Popen([sys.executable, "-c", "while True: pass"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def lives(pid: int) -> bool:
    """An orphan that was killed may stay a zombie for a moment, which has no memory."""
    try:
        return "VmRSS" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_the_whole_tree_is_counted_and_stopped(tmp_path: Path) -> None:
    """CPU time and memory are those of the children too, and no child outlives the server."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-c", FORKS, str(port)]
    with running(command, {}, f"http://127.0.0.1:{port}/", tmp_path / "log") as tree:
        pids = tree.pids()
        assert len(pids) == 2
        wait_until(lambda: tree.cpu_seconds() > 0.3, seconds=20)
        assert tree.memory_bytes() > 2**20
    wait_until(lambda: not any(lives(pid) for pid in pids), seconds=20)


def test_a_server_that_fails_says_why(tmp_path: Path) -> None:
    """Its last words are in the error."""
    command = [sys.executable, "-c", "raise SystemExit('no weights')"]
    with pytest.raises(ServerFailed, match="no weights"), running(command, {}, "http://127.0.0.1:9/", tmp_path / "log"):
        pass
