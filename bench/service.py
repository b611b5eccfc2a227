"""The service against the bare engine, and how soon a job shows something: python -m bench.service [--examples N] [--rounds R]

Both train the same job on the same prepared digits with the same threads, in turns, and their best rounds are compared. The rate
is taken between the first and the last tick: grids, checkpoints and metrics count, the start of the process does not. The bare
engine is `python -m worker.trainer` while the service is up but idle; the service is `ganvil up` with default settings.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.cli.demo import handwritten_digits, service
from app.client import Client
from app.schemas.jobs import Job

STEP_TARGET, GRID_TARGET, RATIO_TARGET = 6.0, 10.0, 0.98


def through_the_service(client: Client, dataset: str, examples: int) -> tuple[Job, dict[str, float]]:
    """The job once it has succeeded; its rate, and the seconds from its submission to the first tick and the first grids."""
    job = client.wait(client.submit(dataset, budget={"examples": examples}, seed=1).id)
    events = list(client.follow(job.id))
    submitted = next(event.created_at for event in events if event.kind == "status")
    ticks = [event for event in events if event.kind == "metrics"]
    grids = [event for event in events if event.kind == "grid"]
    lines = [{"examples_seen": tick.examples_seen, **tick.data} for tick in ticks]
    return job, {
        "rate": rate(lines),
        "first_step": (ticks[0].created_at - submitted).total_seconds(),
        "first_grid": (grids[0].created_at - submitted).total_seconds(),
        "first_trained_grid": (grids[1].created_at - submitted).total_seconds(),
    }


def alone(config: dict[str, Any], prepared: Path) -> float:
    """Images a second of the trainer that nobody watches."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        (run_dir / "run.json").write_text(json.dumps({"config": config, "data": str(prepared)}), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "worker.trainer", folder], check=True)
        lines = [json.loads(line) for line in (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return rate([line for line in lines if line["kind"] == "metrics"])


def rate(ticks: list[dict[str, Any]]) -> float:
    first, last = ticks[0], ticks[-1]
    return float(
        (last["examples_seen"] - first["examples_seen"]) / (last["elapsed_seconds"] - first["elapsed_seconds"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as client:
        dataset = handwritten_digits(client)
        (prepared,) = (path.parent for path in Path(folder).glob("data/objects/datasets/*/*/dataset.json"))
        for _ in range(options.rounds):
            job, measured = through_the_service(client, dataset.id, options.examples)
            threads = (job.fingerprint or {})["threads"]  # what the worker decided
            rounds.append(measured | {"alone": alone(job.config | {"threads": threads}, prepared)})
    report(options, job, rounds)


def report(options: argparse.Namespace, job: Job, rounds: list[dict[str, float]]) -> None:
    """One table and one JSON line."""
    columns = ("alone", "rate", "first_step", "first_grid", "first_trained_grid")
    print(f"{options.examples} examples, {(job.fingerprint or {})['threads']} threads, preset {job.preset}")
    print(
        f"{'round':>6} {'alone img/s':>12} {'service img/s':>14} {'first step s':>13} {'first grid s':>13} {'trained grid s':>15}"
    )
    for number, row in enumerate(rounds, start=1):
        print(
            "{:>6} {:>12.0f} {:>14.0f} {:>13.2f} {:>13.2f} {:>15.2f}".format(number, *(row[name] for name in columns))
        )
    # Whatever else runs on the machine only ever slows a round down: the best of each is what they can do.
    ratio = max(row["rate"] for row in rounds) / max(row["alone"] for row in rounds)
    summary = {
        "bench": "service",
        **{name: round(statistics.median(row[name] for row in rounds), 2) for name in columns},
        "service_share": round(ratio, 4),
        "targets_met": {
            "service_share": ratio >= RATIO_TARGET,
            "first_step": max(row["first_step"] for row in rounds) <= STEP_TARGET,
            "first_grid": max(row["first_trained_grid"] for row in rounds) <= GRID_TARGET,
        },
    }
    print(
        f"service / alone: {ratio:.3f} (at least {RATIO_TARGET}); first step at most {STEP_TARGET:g} s, first grid {GRID_TARGET:g} s"
    )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
