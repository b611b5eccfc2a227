"""Servers of generated images side by side: python -m bench.serve [requests] [bulk] [open-loop] [models] [options]

    requests   one image a request: this service, LitServe, BentoML, a hand-written FastAPI, and the ceiling, which answers fixed bytes
    bulk       1,024 images a request, against the bare generator and encoder
    open-loop  requests that arrive at 50, 80 and 120 % of what the service can do, whether it is ready for them or not
    models     ten models at once, then many more than memory may hold

All get the same generator (dcgan, 64 base channels, 32 x 32 RGB, untrained), the same PyTorch at the same precision and threads, and PNG
at level 1 (the peers Pillow's, or with --encoder ours the one of this service), and run in turn on loopback. wrk must be installed. The peers are installed once, into --cache.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.settings import Settings
from bench.serving import bulk, closed, machine, many, model, open_loop, wrk
from bench.serving.contenders import CONTENDERS, Contender, Site
from bench.serving.environment import NoPeers, peers_python
from bench.serving.gate import GateFailed
from bench.serving.peers.pictures import ENCODERS
from bench.serving.precision import fastest
from bench.serving.report import Target, document

PARTS = ("requests", "bulk", "open-loop", "models")
NAMES = [contender.name for contender in CONTENDERS]


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped
    try:
        wrk.check()
        with tempfile.TemporaryDirectory(prefix="ganvil-serve-") as folder:
            site = prepare(Path(folder), options)
            results = {part: PART[part](site, options) for part in options.parts}
    except (wrk.LoadFailed, GateFailed) as error:
        raise SystemExit(str(error)) from error
    print(
        json.dumps(
            {
                "bench": "serve",
                **machine.describe(),
                "precision": site.precision,
                "threads": site.threads,
                "encoder": site.encoder,
            }
            | results
        )
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; the first two unless said")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=5, help="seconds of load before each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, in each server")
    parser.add_argument("--precision", help="of the peers; the fastest here unless said")
    parser.add_argument("--encoder", choices=ENCODERS, default="pillow", help="of the peers' PNG")
    parser.add_argument("--setting", nargs="+", default=[], metavar="GANVIL_NAME=VALUE", help="of this service alone")
    parser.add_argument("--deadline-ms", type=float, default=1000, help="open-loop: within which an answer counts")
    parser.add_argument("--header", nargs="+", default=[], metavar="NAME:VALUE", help="open-loop: of each request")
    parser.add_argument(
        "--images", type=int, default=16, help="open-loop: of each request; for one the load's own program is too slow"
    )
    parser.add_argument("--models", type=int, default=200, help="models: how many, of which ten fit into memory")
    parser.add_argument("--minutes", type=float, default=10, help="models: how long they are asked for")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ganvil-bench")
    options = parser.parse_args()
    options.parts = options.parts or ["requests", "bulk"]
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: name some of {', '.join(PARTS)}")
    return options


def prepare(folder: Path, options: argparse.Namespace) -> Site:
    """The generator, published and as a snapshot, and the environment of the peers."""
    snapshot = model.write_snapshot(folder / "snapshot")
    model.publish(Settings(data_dir=folder / "data"), [snapshot], ["bench"])
    precision = options.precision or fastest(snapshot, options.threads)
    print(f"{machine.describe()}, peers run {precision}", file=sys.stderr)
    ours = dict(each.split("=", 1) for each in options.setting)
    (folder / "logs").mkdir()
    return Site(folder / "data", snapshot, precision, options.threads, None, folder / "logs", ours, options.encoder)


def with_peers(site: Site, options: argparse.Namespace, wanted: list[Contender]) -> tuple[Site, list[Contender]]:
    """Those that can be measured: without an environment ours alone, which is said."""
    if all(contender.ours for contender in wanted):
        return site, wanted
    try:
        python = peers_python(options.cache)
    except NoPeers as error:
        print(f"The peers are left out: {error}", file=sys.stderr)
        return site, [contender for contender in wanted if contender.ours]
    return Site(**{**vars(site), "python": python}), wanted


def requests(site: Site, options: argparse.Namespace) -> dict[str, object]:
    wanted = [contender for contender in CONTENDERS if not options.only or contender.name in options.only]
    site, wanted = with_peers(site, options, wanted)
    runs = closed.measure(
        wanted,
        site,
        rounds=options.rounds,
        seconds=options.seconds,
        warmup=options.warmup,
        connections=options.connections,
    )
    rows = closed.summarise(runs)
    return told(closed.table(rows), rows, closed.targets(rows))


def in_bulk(site: Site, options: argparse.Namespace) -> dict[str, object]:
    rounds = bulk.measure(site, rounds=options.rounds, seconds=options.seconds)
    return told(bulk.table(rounds), rounds, bulk.targets(rounds))


def in_an_open_loop(site: Site, options: argparse.Namespace) -> dict[str, object]:
    limit = options.deadline_ms
    capacity, rows = open_loop.measure(
        site, seconds=options.seconds, deadline_ms=limit, headers=options.header, images=options.images
    )
    return told(open_loop.table(capacity, rows), rows, open_loop.targets(rows, limit)) | {"capacity": round(capacity)}


def many_models(site: Site, options: argparse.Namespace) -> dict[str, object]:
    rows = many.measure(site, models=options.models, seconds=options.seconds, minutes=options.minutes)
    return told(many.table(rows), rows, many.targets(rows))


def told(table: str, rows: Iterable[Any], targets: Sequence[Target]) -> dict[str, object]:
    """Prints a part's table and targets; what the JSON line says of it."""
    print(table, *targets, sep="\n", end="\n\n", flush=True)
    return document(rows, targets)


PART = {"requests": requests, "bulk": in_bulk, "open-loop": in_an_open_loop, "models": many_models}

if __name__ == "__main__":
    main()
