"""One image a request, in a closed loop: every server in turn, round after round, the order turned around each time."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.serving import wrk
from bench.serving.contenders import Contender, Site, port_of_its_own
from bench.serving.gate import Gate
from bench.serving.machine import watch
from bench.serving.processes import ServerFailed, Tree
from bench.serving.report import Target
from bench.serving.wrk import Load

WARM_CONNECTIONS = 32  # BentoML's batching learns from these


@dataclass(frozen=True)
class Run:
    """One server under one load, once."""

    name: str
    connections: int
    load: Load
    cpu_seconds: float  # of all the server's processes
    memory_bytes: int


@dataclass(frozen=True)
class Row:
    """Medians over the rounds, and the range of the rate."""

    name: str
    connections: int
    rounds: int
    requests_per_second: float
    slowest: float
    fastest: float
    images_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_seconds_per_1000: float
    client_cores: float
    memory_mib: float
    refused: int
    broken: int


def in_turns(contenders: Sequence[Contender], rounds: int) -> Iterable[list[Contender]]:
    """A B C, C B A, A B C ...: a slow drift of the machine meets all alike."""
    for number in range(rounds):
        yield list(contenders) if number % 2 == 0 else list(reversed(contenders))


def measure(
    contenders: Sequence[Contender],
    site: Site,
    *,
    rounds: int,
    seconds: float,
    warmup: float,
    connections: Sequence[int],
) -> list[Run]:
    """All rounds; a server that does not come up is left out of the rest, and said so."""
    gate, left, runs = Gate(site), list(contenders), []
    for number, order in enumerate(in_turns(contenders, rounds), start=1):
        for contender in [each for each in order if each in left]:
            watch(f"round {number} of {rounds}, {contender.name}")
            try:
                runs += _one(contender, site, gate, seconds, warmup, connections)
            except ServerFailed as error:
                print(f"{contender.name} is left out: {error}", file=sys.stderr)
                left.remove(contender)
    return runs


def _one(
    contender: Contender, site: Site, gate: Gate, seconds: float, warmup: float, connections: Sequence[int]
) -> list[Run]:
    port = port_of_its_own()
    address = f"http://127.0.0.1:{port}"
    with contender.start(site, port, site.log(contender.name)) as tree:
        contender.warm(address)
        gate.check(contender, address)
        requests = contender.requests(address)
        wrk.run(address, requests, connections=WARM_CONNECTIONS, seconds=warmup)
        return [_run(contender.name, tree, address, requests, n, seconds) for n in connections]


def _run(name: str, tree: Tree, address: str, requests: Sequence[bytes], connections: int, seconds: float) -> Run:
    before = tree.cpu_seconds()
    load = wrk.run(address, requests, connections=connections, seconds=seconds)
    return Run(name, connections, load, tree.cpu_seconds() - before, tree.memory_bytes())


def summarise(runs: Sequence[Run]) -> list[Row]:
    """A row for each server and number of connections, in the order of their first runs."""
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, run.connections), []).append(run)
    return [_row(name, connections, group) for (name, connections), group in groups.items()]


def _row(name: str, connections: int, group: Sequence[Run]) -> Row:
    rates = [run.load.per_second for run in group]
    rate = statistics.median(rates)
    told = [
        run for run in group if run.load.requests > run.load.refused
    ] or group  # a run without an answer has no times
    return Row(
        name=name,
        connections=connections,
        rounds=len(group),
        requests_per_second=rate,
        slowest=min(rates),
        fastest=max(rates),
        images_per_second=0.0 if name.endswith("known") else rate,
        p50_ms=statistics.median(run.load.p50_ms for run in told),
        p99_ms=statistics.median(run.load.p99_ms for run in told),
        cpu_seconds_per_1000=statistics.median(
            1000 * run.cpu_seconds / max(1, run.load.requests - run.load.refused) for run in told
        ),
        client_cores=statistics.median(run.load.client_seconds / run.load.seconds for run in group),
        memory_mib=max(run.memory_bytes for run in group) / 2**20,
        refused=sum(run.load.refused for run in group),
        broken=sum(run.load.broken for run in group),
    )


def table(rows: Sequence[Row]) -> str:
    head = (
        f"{'server':<18}{'conn.':>6}{'requests/s':>11}{'(range)':>15}{'images/s':>10}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'CPU-s/1000':>11}{'client':>7}{'MiB':>6}{'refused':>8}{'broken':>7}"
    )
    lines = [
        f"{row.name:<18}{row.connections:>6}{row.requests_per_second:>11,.0f}"
        f"{f'({row.slowest:,.0f}-{row.fastest:,.0f})':>15}{row.images_per_second:>10,.0f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        f"{row.cpu_seconds_per_1000:>11.2f}{row.client_cores:>7.2f}{row.memory_mib:>6.0f}{row.refused:>8}{row.broken:>7}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def targets(rows: Sequence[Row]) -> list[Target]:
    """Those that these rows can tell."""
    by = {(row.name, row.connections): row for row in rows}
    ours = max(
        (by[name, 32] for name in OURS if (name, 32) in by), key=lambda row: row.requests_per_second, default=None
    )
    found = []
    if ours is not None and (lit := by.get(("litserve", 32))) is not None:
        found += [
            Target(
                "32 connections, rate / LitServe's",
                ours.requests_per_second / lit.requests_per_second,
                6,
                at_least=True,
            ),
            Target("32 connections, p99 / LitServe's", ours.p99_ms / lit.p99_ms, 1, at_least=False),
        ]
    if (alone := by.get(("ours", 1))) is not None and (hand := by.get(("by hand", 1))) is not None:
        found.append(Target("1 connection, p50 / by hand", alone.p50_ms / hand.p50_ms, 0.7, at_least=False))
    if (known := by.get(("ours, known", 32))) is not None and (ceiling := by.get(("ceiling", 32))) is not None:
        share = known.requests_per_second / ceiling.requests_per_second
        found.append(Target("32 connections, 304 / ceiling", share, 0.6, at_least=True))
    return found


OURS = ("ours", "ours, 2 processes")
