"""1,024 images a request, one request at a time, against the same cores without a service."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import httpx

from bench.serving.bare import N
from bench.serving.contenders import OURS_ALONE, PATIENCE, Site, port_of_its_own
from bench.serving.environment import environment
from bench.serving.machine import watch
from bench.serving.report import Target

NPZ, ZIP = "application/x-npz", "application/zip"
SHARE = 0.85
NAMES = {
    "forward": "bare forward",
    NPZ: "ours, npz",
    "pillow": "bare + Pillow's PNG",
    "ours": "bare + our PNG",
    ZIP: "ours, zip of PNG",
}

Ask = Callable[[str], float]  # the kind of work to the seconds that it took
Round = dict[str, float]  # images a second of each kind


def measure(site: Site, *, rounds: int, seconds: float) -> list[Round]:
    """Rounds of one request of each kind, in turn, for as long as `rounds` of `seconds` take. Both sides wait for the other."""
    with _bare(site) as bare, _ours(site) as ours:
        asks = [(kind, ours if "/" in kind else bare) for kind in NAMES]
        for kind, ask in asks:
            ask(kind)
        watch("bulk")
        found: list[Round] = []
        end = time.monotonic() + rounds * seconds
        while len(found) < rounds or time.monotonic() < end:
            order = asks if len(found) % 2 == 0 else asks[::-1]
            found.append({kind: N / ask(kind) for kind, ask in order})
        return found


@contextmanager
def _bare(site: Site) -> Iterator[Ask]:
    command = [sys.executable, "-m", "bench.serving.bare", str(site.snapshot), site.precision, str(site.threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | environment(site.threads), **pipes) as process:

        def ask(kind: str) -> float:
            process.stdin.write(f"{kind}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        with process.stdin or nullcontext():
            yield ask


@contextmanager
def _ours(site: Site) -> Iterator[Ask]:
    port = port_of_its_own()
    address = f"http://127.0.0.1:{port}"
    with (
        OURS_ALONE.start(site, port, site.log("bulk")),
        httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as http,
    ):
        OURS_ALONE.warm(address)
        asked = 0

        def ask(media_type: str) -> float:
            nonlocal asked
            asked += 1
            began = time.perf_counter()
            body = {"model": "bench:1", "n": N, "seed": asked * N, "format": "png"}
            with http.stream("POST", "/v1/generations", json=body, headers={"Accept": media_type}) as response:
                response.raise_for_status()
                for _ in response.iter_raw():
                    pass
            return time.perf_counter() - began

        yield ask


def table(found: Sequence[Round]) -> str:
    lines = [f"{'1,024 images a request':<24}{'images/s':>9}{'(range)':>18}"]
    for kind, name in NAMES.items():
        rates = [each[kind] for each in found]
        lines.append(f"{name:<24}{statistics.median(rates):>9,.0f}{f'({min(rates):,.0f}-{max(rates):,.0f})':>18}")
    return "\n".join(lines)


def targets(found: Sequence[Round]) -> list[Target]:
    return [
        Target("npz / bare forward", _share(found, NPZ, "forward"), SHARE, at_least=True),
        Target("zip / bare forward and our PNG", _share(found, ZIP, "ours"), SHARE, at_least=True),
        Target("zip / bare forward and Pillow's PNG", _share(found, ZIP, "pillow"), SHARE, at_least=True),
    ]


def _share(found: Sequence[Round], ours: str, bare: str) -> float:
    """The median over rounds, whose two sides ran moments apart."""
    return statistics.median(each[ours] / each[bare] for each in found)
