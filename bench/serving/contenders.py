"""The servers: how each is started, and what a request to it looks like."""

import base64
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.up.redis_server import free_port
from bench.serving.environment import environment
from bench.serving.peers.pictures import ENCODER, PRECISION, SNAPSHOT, THREADS
from bench.serving.processes import Tree, running
from bench.serving.wrk import get, post

PATIENCE = 120  # seconds, for a first request that loads PyTorch and the generator
EVERYBODY = 32  # connections at once, which reach every process of a server
REPEATED = range(64)  # the seeds of a client that has seen their samples before
MODEL = "/v1/models/bench:1/samples"
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")


@dataclass(frozen=True)
class Site:
    """Where a bench runs: the folder of our service's data, the snapshot that peers load, how, and by which interpreter."""

    data: Path
    snapshot: Path
    precision: str
    threads: int
    python: Path | None  # of the peers; None where there is no environment for them
    logs: Path  # the folder for what servers say
    ours: Mapping[str, str] = field(default_factory=dict)  # settings of our service beside the usual ones
    encoder: str = "pillow"  # of the peers

    def log(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '-').replace(',', '')}.log"

    def environment(self, port: int) -> dict[str, str]:
        for_peers = {SNAPSHOT: str(self.snapshot), PRECISION: self.precision, THREADS: str(self.threads)}
        for_peers[ENCODER] = self.encoder
        for_us = {
            "GANVIL_DATA_DIR": str(self.data),
            "GANVIL_PORT": str(port),
            "GANVIL_SAMPLER_THREADS": str(self.threads),
        }
        return environment(self.threads) | for_peers | for_us | dict(self.ours)


@dataclass(frozen=True)
class Contender:
    """A server. `command` takes the interpreter and a port; `requests` are what wrk sends, given the running server's address."""

    name: str
    command: Callable[[str, int], list[str]]
    ready: str
    requests: Callable[[str], list[bytes]]
    picture: Callable[[httpx.Client, int], bytes]
    ours: bool = False

    def warm(self, address: str) -> None:
        """Have every process of the server load what it needs."""

        def ask(seed: int) -> None:
            with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as http:
                self.picture(http, seed)

        with ThreadPoolExecutor(EVERYBODY) as pool:
            list(pool.map(ask, range(EVERYBODY)))

    def start(self, site: Site, port: int, log: Path) -> AbstractContextManager[Tree]:
        """Raises ServerFailed."""
        python = sys.executable if self.ours else str(site.python)
        return running(self.command(python, port), site.environment(port), f"http://127.0.0.1:{port}{self.ready}", log)


def port_of_its_own() -> int:
    return free_port("127.0.0.1")


def _ours(python: str, _port: int) -> list[str]:  # it listens where its settings say
    return [python, "-m", "app"]


def _ours_twice(python: str, _port: int) -> list[str]:
    return [python, "-m", "app", "--processes", "2"]


def _uvicorn(module: str) -> Callable[[str, int], list[str]]:
    return lambda python, port: [
        python,
        "-m",
        "uvicorn",
        f"bench.serving.peers.{module}:app",
        "--port",
        str(port),
        *UVICORN,
    ]


def _litserve(python: str, port: int) -> list[str]:
    return [python, "-m", "bench.serving.peers.lit", str(port)]


def _bentoml(python: str, port: int) -> list[str]:
    service = ("bench.serving.peers.bento:Samples", "--host", "127.0.0.1", "--port", str(port))
    return [python, "-m", "bentoml", "serve", *service]


def _by_path(path: str) -> Callable[[httpx.Client, int], bytes]:
    return lambda http, seed: http.get(path.format(seed=seed)).raise_for_status().content


def _litserve_picture(http: httpx.Client, seed: int) -> bytes:
    return http.post("/predict", json={"seed": seed}).raise_for_status().content


def _bentoml_picture(http: httpx.Client, seed: int) -> bytes:
    (data,) = http.post("/sample", json={"seeds": [seed]}).raise_for_status().json()
    return base64.b64decode(data)


def _known(address: str) -> list[bytes]:
    """Requests for samples that the client has already: it knows their entity tags."""
    with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as http:
        tags = {seed: http.head(f"{MODEL}/{seed}.png").raise_for_status().headers["ETag"] for seed in REPEATED}
    return [get(f"{MODEL}/{seed}.png", If_None_Match=tag) for seed, tag in tags.items()]


ADDRESS = f"{MODEL}/{{seed}}.png"
PLAIN = "/samples/{seed}.png"


def _address(path: str) -> Callable[[str], list[bytes]]:
    return lambda _: [get(path)]


def _body(path: str, body: str) -> Callable[[str], list[bytes]]:
    return lambda _: [post(path, body)]


CONTENDERS = (
    Contender("ours", _ours, "/health/ready", _address(ADDRESS), _by_path(ADDRESS), ours=True),
    Contender("ours, 2 processes", _ours_twice, "/health/ready", _address(ADDRESS), _by_path(ADDRESS), ours=True),
    Contender("litserve", _litserve, "/health", _body("/predict", '{"seed": {seed}}'), _litserve_picture),
    Contender("bentoml", _bentoml, "/readyz", _body("/sample", '{"seeds": [{seed}]}'), _bentoml_picture),
    Contender("by hand", _uvicorn("plain_fastapi"), "/health", _address(PLAIN), _by_path(PLAIN)),
    Contender("ceiling", _uvicorn("ceiling"), "/health", _address(PLAIN), _by_path(PLAIN)),
    Contender("ours, known", _ours, "/health/ready", _known, _by_path(ADDRESS), ours=True),
)
OURS_ALONE = CONTENDERS[0]
