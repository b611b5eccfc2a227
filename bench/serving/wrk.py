"""Closed-loop load by wrk: so many connections, each with the next request as soon as it has its answer."""

import json
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT_SECONDS = 60
FIRST_SEED, SEEDS_PER_RUN = 10**9, 10**7  # ten digits whatever happens, so that Content-Length stays right
_runs = count()


class LoadFailed(Exception):
    """wrk is missing, or said nothing that can be read."""


@dataclass(frozen=True)
class Load:
    """What one run came to. `refused` are answers of 400 and above; `broken` never came: sockets and timeouts."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int
    client_seconds: float = 0.0  # of CPU

    @property
    def per_second(self) -> float:
        """Of answers that were right."""
        return (self.requests - self.refused) / self.seconds


def check() -> None:
    """Raises LoadFailed without wrk."""
    if shutil.which("wrk") is None:
        raise LoadFailed("wrk is not installed: apt-get install wrk")


def run(url: str, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Load on the server at `url`; each request holds `{seed}`, or nothing that changes."""
    check()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0".join(requests))
        file.flush()
        before = _client_seconds()
        done = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"),
                *("--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT), url, "--"),
                *(file.name, str(FIRST_SEED + next(_runs) * SEEDS_PER_RUN)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    return parse(done.stdout + done.stderr, _client_seconds() - before)


def parse(output: str, client_seconds: float = 0.0) -> Load:
    """What our script prints at the end. Raises LoadFailed with all that was said when there is no such line."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise LoadFailed(f"wrk failed: {output.strip() or 'it said nothing'}")
    found = json.loads(line.removeprefix("RESULT "))
    return Load(
        requests=found["requests"],
        seconds=found["microseconds"] / 1e6,
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        refused=found["refused"],
        broken=sum(found[kind] for kind in ("connect", "read", "write", "timeout")),
        client_seconds=client_seconds,
    )


def _client_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def get(path: str, **headers: str) -> bytes:
    """A whole GET request; underscores in names of headers stand for hyphens."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *_lines(headers), "", ""]).encode()


def post(path: str, body: str, **headers: str) -> bytes:
    """A whole POST of JSON. `{seed}` in it counts for the ten digits that it becomes."""
    length = len(body.replace("{seed}", str(FIRST_SEED)))
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*head, *_lines(headers), "", body]).encode()


def _lines(headers: dict[str, str]) -> list[str]:
    return [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
