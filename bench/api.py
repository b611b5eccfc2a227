"""How fast the API is, idle and while a job trains beside it: python -m bench.api [--requests N]

It starts its own service with default settings. Times are those that a client on the same machine sees, one request at a time,
over a kept connection.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from app.cli.demo import handwritten_digits, service
from app.up.redis_server import free_port

STARTS = 3
JOB = {"dataset": "digits", "budget": {"examples": 1_000_000}, "seed": 1}


class Row(NamedTuple):
    """A measurement; `limit` is what it must stay under."""

    name: str
    value: float
    unit: str
    limit: float | None = None


def import_seconds() -> float:
    """Of `import app.main` in a fresh interpreter; fails if torch came along."""
    code = "import time; t = time.perf_counter(); import app.main, sys; assert 'torch' not in sys.modules; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@contextmanager
def api_alone(folder: Path) -> Iterator[tuple[httpx.Client, float]]:
    """The API on a folder, without Redis or a worker: a client of it, and the seconds until /health/ready answered 200."""
    port = free_port("127.0.0.1")
    env = os.environ | {"GANVIL_DATA_DIR": str(folder), "GANVIL_PORT": str(port)}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, "-m", "app"], env=env) as process:
            try:
                while not is_ready(http):
                    time.sleep(0.01)
                yield http, time.perf_counter() - began
            finally:
                process.terminate()


def ready_seconds(folder: Path) -> float:
    """On an empty folder, whose database is made first."""
    with api_alone(folder) as (_, seconds):
        return seconds


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/health/ready").is_success
    except httpx.TransportError:
        return False


def milliseconds(times: int, request: Callable[[], httpx.Response]) -> list[float]:
    """Of each of so many requests, after a few to warm up."""
    found = []
    for _ in range(times + 5):
        began = time.perf_counter()
        request().raise_for_status()
        found.append((time.perf_counter() - began) * 1000)
    return found[5:]


def p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def under_way(http: httpx.Client, requests: int, limits: dict[str, float]) -> list[Row]:
    """The requests that a client makes most, against a running service; submissions are cancelled again, uncounted."""
    submitted: list[str] = []

    def submit() -> httpx.Response:
        response = http.post("/v1/jobs", json=JOB)
        submitted.append(response.json()["id"])
        return response

    calls: dict[str, Callable[[], httpx.Response]] = {
        "POST /v1/jobs": submit,
        "GET /v1/jobs/{id}": lambda: http.get(f"/v1/jobs/{submitted[0]}"),
        "GET /v1/jobs": lambda: http.get("/v1/jobs"),
        "GET /v1/jobs/{id}/events": lambda: http.get(f"/v1/jobs/{submitted[0]}/events"),
    }
    rows = []
    for name, call in calls.items():
        times = milliseconds(requests, call)
        rows += [
            Row(f"{name} p{n}", p(times, n), "ms", limits.get(f"{name} p{n}", limits.get(f"p{n}"))) for n in (50, 95)
        ]
    for job in submitted:
        http.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    return rows


def while_training(folder: Path, requests: int) -> list[Row]:
    """Beside a job of higher priority, which keeps the worker to itself; leaves the data set `digits` in the folder."""
    with service(folder) as client, httpx.Client(base_url=client.url, timeout=30, trust_env=False) as http:
        handwritten_digits(client)
        training = client.submit("digits", budget={"examples": 100_000_000}, seed=1, priority=100)
        while client.job(training.id).progress.examples_seen == 0:
            time.sleep(0.2)
        rows = under_way(http, requests, {"p95": 50})
        client.cancel(training.id)
    return [row._replace(name=f"{row.name}, training") for row in rows]


def idle(folder: Path, requests: int) -> list[Row]:
    """On the data of a service that has stopped: nobody takes up what is submitted."""
    with api_alone(folder) as (http, _):
        return under_way(http, requests, {"POST /v1/jobs p50": 15})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [
            Row("import app.main", min(import_seconds() for _ in range(STARTS)), "s"),
            Row("API ready", min(ready_seconds(root / f"start-{n}") for n in range(STARTS)), "s", 3),
        ]
        busy = while_training(root, requests)
        rows += [*idle(root / "data", requests), *busy]
    report(rows)


def report(rows: list[Row]) -> None:
    """One table and one JSON line."""
    for name, value, unit, limit in rows:
        print(
            f"{name:<40} {value:>9.2f} {unit:<3}"
            + (f" (limit {limit:g}{'' if value < limit else ': MISSED'})" if limit else "")
        )
    print(json.dumps({row.name: round(row.value, 3) for row in rows}))


if __name__ == "__main__":
    main()
