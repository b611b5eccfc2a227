"""Ten models at once, then many more than memory may hold: no errors, and memory that does not grow."""

import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import httpx

from app.settings import Settings
from bench.serving import model, wrk
from bench.serving.contenders import OURS_ALONE, PATIENCE, Site, port_of_its_own
from bench.serving.machine import watch
from bench.serving.processes import Tree
from bench.serving.report import Target
from models.manifest import WEIGHTS

HELD = 10  # models that memory may hold
ROOM = 1.1  # for what a loaded model has beside its weights
CONNECTIONS = 32
SAMPLE_SECONDS = 1.0
GROWTH = 0.05  # of the settled memory that counts as none
TINT = 1e-3


@dataclass(frozen=True)
class Row:
    models: int
    seconds: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int
    settled_mib: float  # median of the second quarter of the run
    last_mib: float  # of the last
    peak_mib: float

    @property
    def growth(self) -> float:
        return self.last_mib / self.settled_mib - 1


def measure(site: Site, *, models: int, seconds: float, minutes: float) -> list[Row]:
    names = [f"many-{number}" for number in range(models)]
    model.publish(Settings(data_dir=site.data), snapshots(models), names)
    watch("models")
    return [
        _row(site, names[:HELD], seconds, {}),
        _row(site, names, minutes * 60, {"GANVIL_SAMPLER_MEMORY_BYTES": str(allowed(site))}),
    ]


def allowed(site: Site) -> int:
    """Bytes that hold ten models and no more."""
    return int(HELD * ROOM * (site.snapshot / WEIGHTS).stat().st_size)


def snapshots(models: int) -> Iterator[Path]:
    """So many of the same network, each with weights of its own; each is gone when the next one comes."""
    for number in range(models):
        with tempfile.TemporaryDirectory() as folder:
            yield model.write_snapshot(Path(folder), tint=TINT * (number + 1))


def _row(site: Site, names: Sequence[str], seconds: float, settings: dict[str, str]) -> Row:
    site = replace(site, ours=dict(site.ours) | settings)
    port = port_of_its_own()
    address = f"http://127.0.0.1:{port}"
    requests = [wrk.get(f"/v1/models/{name}:1/samples/{{seed}}.png") for name in names]
    with OURS_ALONE.start(site, port, site.log(f"{len(names)}-models")) as tree:
        OURS_ALONE.warm(address)
        with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as http:
            for name in names[:HELD]:
                http.get(f"/v1/models/{name}:1/samples/0.png").raise_for_status()
        with Watching(tree) as memory:
            load = wrk.run(address, requests, connections=CONNECTIONS, seconds=seconds)
    quarter = max(1, len(memory.mib) // 4)
    return Row(
        models=len(names),
        seconds=load.seconds,
        requests_per_second=load.per_second,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        refused=load.refused,
        broken=load.broken,
        settled_mib=statistics.median(memory.mib[quarter : 2 * quarter] or memory.mib),
        last_mib=statistics.median(memory.mib[-quarter:]),
        peak_mib=max(memory.mib),
    )


class Watching:
    """The memory of a server, every second for as long as the block lasts."""

    def __init__(self, tree: Tree) -> None:
        self.mib: list[float] = []
        self._tree = tree
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self.mib or not self._done.wait(SAMPLE_SECONDS):
            self.mib.append(self._tree.memory_bytes() / 2**20)


def table(rows: Sequence[Row]) -> str:
    head = (
        f"{'models':>6}{'seconds':>9}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'broken':>8}"
        f"{'MiB settled':>13}{'at the end':>12}{'peak':>7}"
    )
    lines = [
        f"{row.models:>6}{row.seconds:>9.0f}{row.requests_per_second:>12,.0f}{row.p50_ms:>9.1f}{row.p99_ms:>9.1f}"
        f"{row.refused:>9}{row.broken:>8}{row.settled_mib:>13.0f}{row.last_mib:>12.0f}{row.peak_mib:>7.0f}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def targets(rows: Sequence[Row]) -> list[Target]:
    errors = [Target(f"{row.models} models: errors", row.refused + row.broken, 0, at_least=False) for row in rows]
    longest = rows[-1]
    return [*errors, Target(f"{longest.models} models: growth of memory", longest.growth, GROWTH, at_least=False)]
