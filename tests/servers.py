"""Real servers for tests: each listens on a free loopback port and is gone when its context ends."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import redis

from app.up.redis_server import embedded_redis, free_port

START_SECONDS = 30.0


class RedisServer:
    """A redis-server with a password that can be killed and started again at the same address."""

    def __init__(self) -> None:
        self._server = embedded_redis()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self._server.url

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._server.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._server.configuration.encode())
        self._process.stdin.close()
        with redis.Redis.from_url(self.url) as client:
            wait_until(client.ping, unless=redis.ConnectionError)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.kill()


def postgres_programs() -> Path | None:
    """Where Debian or PATH keeps `initdb` and `postgres`; None without them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """A cluster of its own for user `ganvil`, with nothing worth an fsync; yields its URL without a database."""
    programs = postgres_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="ganvil-postgres-"))
    user = _unprivileged(folder)
    port = free_port("127.0.0.1")
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "ganvil", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
    options |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "autovacuum"), "off")
    command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    process = subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        address = f"postgresql://ganvil@127.0.0.1:{port}"
        wait_until(lambda: psycopg.connect(f"{address}/postgres").close() is None, unless=psycopg.OperationalError)
        yield address
    finally:
        process.kill()  # what it holds is thrown away
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> str | None:
    """PostgreSQL refuses to run as root: another user then owns the folder. None where we are no root ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    shutil.chown(folder, user)
    return user


def wait_until(
    holds: Callable[[], object], *, unless: type[Exception] | tuple[()] = (), seconds: float = START_SECONDS
) -> None:
    """Return once `holds()` is true; an exception of kind `unless` counts as not yet. AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(unless) if unless else contextlib.nullcontext():
            if holds():
                return
        time.sleep(0.02)
    raise AssertionError(f"not so within {seconds} s")
