"""Whether it works for any seed: the job that somebody gets who asks for nothing, ten times over.

    python -m bench.seeds [--zip mnist-train.zip]... [--seeds N] [--examples N | --seconds S]

Trains on the built-in digits and on each archive, and tells how every run ended, what its verdicts were and how far KID varies.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import runs
from models.presets import DEFAULT_PRESET, resolve
from worker.data.prepared import Data

SICK = {"diverged", "collapsed"}


def measure(options: argparse.Namespace, data: Data, name: str, seed: int) -> dict[str, Any]:
    """One run. `verdicts` are all that were spoken, in order; `kid` is of the last evaluation."""
    budget = {unit: getattr(options, unit) for unit in ("examples", "seconds") if getattr(options, unit)} or None
    overrides = {"threads": options.threads}
    config = resolve(DEFAULT_PRESET, overrides, data.spec, budget=budget, seed=seed, hardware=runs.hardware())
    with tempfile.TemporaryDirectory() as folder:
        events = runs.train(config, data, Path(folder) / "run")
    end, found = events[-1], {}
    if any(event["kind"] == "evaluation" for event in events):
        found = runs.last(events, "evaluation")["data"]
    verdicts = [event["data"]["verdict"] for event in events if event["kind"] == "verdict"]
    return {
        "data": name,
        "seed": seed,
        "end": end["kind"],
        "verdicts": verdicts,
        "well": end["kind"] == "finished" and bool(verdicts) and not SICK & set(verdicts),
        **runs.took(events),
        **{key: found.get(key) for key in ("kid", "kid_floor", "coverage", "class_accuracy", "spread")},
    }


def main() -> None:
    parser = runs.make_parser(__doc__)
    parser.add_argument(
        "--zip", type=Path, action="append", default=[], help="beside the built-in digits; may be repeated"
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--examples", type=int, help="to train on; default: the preset's own length")
    length.add_argument("--seconds", type=float, help="to train for")
    options = runs.parse(parser)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"digits": runs.prepare({"kind": "builtin", "name": "digits"}, Path(folder))}
        sets |= {archive.name: runs.prepare_archive(archive, options.cache) for archive in options.zip}
        for name, data in sets.items():
            rows += [measure(options, data, name, seed) for seed in range(options.seeds)]
    report(options, rows)


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One table and one JSON line."""
    print(
        f"{'data':<18}{'seed':>5}{'examples':>10}{'seconds':>9}{'KID':>10}{'floor':>10}{'coverage':>10}{'classes':>9}  end, verdicts"
    )
    for row in rows:
        figures = (("kid", "10.5f"), ("kid_floor", "10.5f"), ("coverage", "10.3f"), ("class_accuracy", "9.2%"))
        texts = (
            format(row[name], kind) if row[name] is not None else f"{'-':>{kind.split('.')[0]}}"
            for name, kind in figures
        )
        print(
            f"{row['data']:<18}{row['seed']:>5}{row['examples']:>10}{row['seconds']:>9.0f}{''.join(texts)}"
            f"  {', '.join((row['end'], *row['verdicts']))}"
        )
    spreads = [
        spread([row for row in rows if row["data"] == name]) for name in dict.fromkeys(row["data"] for row in rows)
    ]
    for found in spreads:
        print(
            "{data}: {well} of {runs} ended well; KID {mean:.5f} in the mean, {sd:.5f} its deviation, {least:.5f} to {most:.5f}".format(
                **found
            )
        )
    given = {name: getattr(options, name) for name in ("seeds", "examples", "seconds")}
    print(json.dumps({"bench": "seeds", **given, "spreads": spreads, "rows": rows, **runs.describe(options.threads)}))


def spread(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of KID over the runs on one data set; NaN where none has any."""
    kids = [row["kid"] for row in rows if row["kid"] is not None] or [float("nan")]
    return {
        "data": rows[0]["data"],
        "runs": len(rows),
        "well": sum(row["well"] for row in rows),
        "mean": statistics.fmean(kids),
        "sd": statistics.stdev(kids) if len(kids) > 1 else 0.0,
        "least": min(kids),
        "most": max(kids),
    }


if __name__ == "__main__":
    main()
