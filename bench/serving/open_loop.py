"""What the service does with requests that arrive at a constant rate, below and above what it can answer."""

import resource
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.serving import wrk
from bench.serving.arrivals import Answer, Arrivals
from bench.serving.contenders import ADDRESS, OURS_ALONE, Site, port_of_its_own
from bench.serving.machine import watch
from bench.serving.report import Target

SHARES = (0.5, 0.8, 1.2)
CAPACITY_CONNECTIONS = 32
QUEUE_SHARE = 0.5  # of the deadline that a full queue takes
MOST_CONNECTIONS = 2000
OK, TOO_MANY = 200, 429


@dataclass(frozen=True)
class Row:
    """What came of one rate. Times are milliseconds from when a request should have left."""

    share: float  # of the capacity
    rate: float
    sent: int
    answered: int
    p50_ms: float
    p99_ms: float
    within_deadline: float  # share of those answered
    refused: float  # share of all, by 429
    told_when: float  # share of those refused, by Retry-After
    other: int  # statuses that are neither
    lost: int  # connections that ended, and answers that never came
    sender_p99_ms: float  # how late the generator of this load was itself


def measure(
    site: Site, *, seconds: float, deadline_ms: float, headers: Sequence[str], images: int
) -> tuple[float, list[Row]]:
    """The capacity in requests a second for so many images each, and a row for each share of it."""
    allow_connections()
    request = template(images, dict(header.split(":", 1) for header in headers))
    capacity = _capacity(site, seconds, request)
    queue = max(1, int(QUEUE_SHARE * capacity * images * deadline_ms / 1000))
    with _serving(replace(site, ours={"GANVIL_SAMPLER_QUEUE_IMAGES": str(queue)} | dict(site.ours))) as port:
        return capacity, [
            _row(
                port,
                share,
                capacity,
                seconds,
                deadline_ms,
                Requests(request, wrk.FIRST_SEED + turn * wrk.SEEDS_PER_RUN),
            )
            for turn, share in enumerate(SHARES, start=1)
        ]


@contextmanager
def _serving(site: Site) -> Iterator[int]:
    port = port_of_its_own()
    with OURS_ALONE.start(site, port, site.log("open-loop")):
        OURS_ALONE.warm(f"http://127.0.0.1:{port}")
        watch("open loop")
        yield port


def template(images: int, headers: dict[str, str]) -> bytes:
    """A request for one picture by its address, or for several in JSON: `{seed}` in it is the first one's."""
    if images == 1:
        return wrk.get(ADDRESS, **headers)
    body = f'{{"model":"bench:1","seed":{{seed}},"n":{images}}}'
    return wrk.post("/v1/generations", body, **headers)


def _capacity(site: Site, seconds: float, request: bytes) -> float:
    with _serving(site) as port:
        address = f"http://127.0.0.1:{port}"
        return wrk.run(address, [request], connections=CAPACITY_CONNECTIONS, seconds=seconds).per_second


def _row(port: int, share: float, capacity: float, seconds: float, deadline_ms: float, request: "Requests") -> Row:
    rate = share * capacity
    arrivals = Arrivals(port, request, rate=rate, seconds=seconds, connections=MOST_CONNECTIONS)
    return summarise(share, rate, arrivals.run(), deadline_ms)


class Requests:
    """The k-th request, for a seed that none before it had; seeds have ten digits."""

    def __init__(self, request: bytes, first: int) -> None:
        self._before, self._after = request.split(b"{seed}")
        self._first = first

    def __call__(self, number: int) -> bytes:
        return self._before + str(self._first + number).encode() + self._after


def allow_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * MOST_CONNECTIONS)), hard))


def summarise(share: float, rate: float, arrivals: Arrivals, deadline_ms: float) -> Row:
    answers = arrivals.answers
    good = [answer.latency * 1000 for answer in answers if answer.status == OK]
    refused = [answer for answer in answers if answer.status == TOO_MANY]
    return Row(
        share=share,
        rate=rate,
        sent=arrivals.total,
        answered=len(good),
        p50_ms=percentile(good, 50),
        p99_ms=percentile(good, 99),
        within_deadline=sum(value <= deadline_ms for value in good) / max(1, len(good)),
        refused=len(refused) / max(1, arrivals.total),
        told_when=sum(answer.retry_after for answer in refused) / len(refused) if refused else 1.0,
        other=len(answers) - len(good) - len(refused),
        lost=arrivals.unanswered + arrivals.broken,
        sender_p99_ms=percentile(lateness(answers), 99),
    )


def lateness(answers: Sequence[Answer]) -> list[float]:
    return [answer.late * 1000 for answer in answers]


def percentile(values: Sequence[float], percent: int) -> float:
    """0 of nothing."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(capacity: float, rows: Sequence[Row]) -> str:
    head = (
        f"{'of ' + format(capacity, ',.0f') + '/s':<12}{'rate':>8}{'sent':>9}{'answered':>9}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'in time':>9}{'429':>8}{'told':>7}{'other':>6}{'lost':>6}{'sender ms':>10}"
    )
    lines = [
        f"{row.share:<12.0%}{row.rate:>8,.0f}{row.sent:>9,}{row.answered:>9,}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        f"{row.within_deadline:>9.2%}{row.refused:>8.2%}{row.told_when:>7.0%}{row.other:>6}{row.lost:>6}{row.sender_p99_ms:>10.2f}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def targets(rows: Sequence[Row], deadline_ms: float) -> list[Target]:
    below, above = rows[1], rows[-1]
    return [
        Target("80 %: p99 ms", below.p99_ms, deadline_ms, at_least=False),
        Target("80 %: refused", below.refused, 0, at_least=False),
        Target("120 %: answered in time", above.within_deadline, 0.99, at_least=True),
        Target("120 %: refusals that say when to come again", above.told_when, 1, at_least=True),
        Target("no answer or another status", sum(row.other + row.lost for row in rows), 0, at_least=False),
    ]


if sys.platform != "linux":
    raise SystemExit("The open loop reads with epoll, which only Linux has.")
