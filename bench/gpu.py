"""What a GPU makes of `dcgan` and `r3gan` at 32 pixels: python -m bench.gpu [--zip cifar10-train.zip] [--batch-size N]

Steps of both networks (losses, penalties, Adam, average) on one batch that stays in the GPU's memory, without statistics: eager,
compiled by torch.compile, and captured as a CUDA graph; each with the algorithms that the trainer keeps to, which give equal bits
every time ("exact"), and with those that cudnn finds fastest ("free"). Operations are counted by torch's formulas. Then
`python -m worker.trainer` itself for so many seconds: its images a second, how often a step of it waits for the GPU, and KID against time.

Penalties differentiate twice, which torch.compile cannot: they go through the uncompiled discriminator.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import runs
from bench.engine import prepare as prepare_noise
from bench.steps import count_waits, images_per_second, make_step, operations_per_image
from models.config import TrainingConfig
from models.presets import Hardware, resolve
from worker.data.prepared import Data, open_data
from worker.engine import Engine, choose_engine

FAMILIES: dict[str, Hardware] = {"dcgan": Hardware("cpu"), "r3gan": Hardware("cuda")}  # for which `quality` takes it
PIXELS = 32
WAYS = ("eager", "compiled", "captured")
ALGORITHMS = ("exact", "free")
# Dense bf16, in 10^12 operations a second, from the vendor's data sheets; the first name that fits counts.
PEAKS = {
    "B200": 2_250,
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
}


def measure_steps(
    options: argparse.Namespace, config: TrainingConfig, data: Data, engine: Engine
) -> list[dict[str, Any]]:
    """A row for each way and choice of algorithms. One that fails says why."""
    rows = []
    cuda = engine.device.type == "cuda"
    for algorithms in ALGORITHMS if cuda else ALGORITHMS[:1]:
        for way in options.ways if cuda else [way for way in options.ways if way != "captured"]:
            row: dict[str, Any] = {"way": way, "algorithms": algorithms, "images_per_second": None, "failed": None}
            with engine.activated():
                if algorithms == "free":
                    torch.use_deterministic_algorithms(mode=False)
                    torch.backends.cudnn.deterministic = False
                    torch.backends.cudnn.benchmark = True
                torch.compiler.reset()
                try:
                    step = make_step(config, data, engine, way)
                    row["images_per_second"] = images_per_second(step, config, options.seconds, options.steps)
                except RuntimeError as error:
                    row["failed"] = str(error).strip().splitlines()[0]
            rows.append(row)
    return rows


def train(config: TrainingConfig, data: Data, seconds: float) -> dict[str, Any]:
    """The trainer as it is: its speed between ticks, and its evaluations over time."""
    timed = config.model_copy(update={"budget": type(config.budget)(seconds=seconds)})
    with tempfile.TemporaryDirectory() as folder:
        events = runs.train(timed, data, Path(folder) / "run")
    ticks = [event["data"] for event in events if event["kind"] == "metrics"]
    late = [tick["examples_per_second"] for tick in ticks[len(ticks) // 3 :]]  # the first ones find their algorithms
    curve = [
        {"seconds": event["elapsed_seconds"], "examples": event["examples_seen"]}
        | {name: event["data"][name] for name in ("kid", "kid_floor", "fid", "coverage")}
        for event in events
        if event["kind"] == "evaluation"
    ]
    memory = max((tick["memory_bytes"] for tick in ticks), default=0)
    rate = statistics.median(late) if late else None
    return {"end": events[-1]["kind"], "images_per_second": rate, "memory_mib": memory >> 20, "curve": curve}


def measure(options: argparse.Namespace, family: str, data: Data) -> dict[str, Any]:
    changes: dict[str, Any] = {"batch_size": options.batch_size} if options.batch_size else {}
    config = resolve("quality", changes, data.spec, hardware=FAMILIES[family])
    engine = choose_engine(config)
    engine = replace(engine, device=torch.device(options.device))
    with engine.activated():
        operations, waits = operations_per_image(config, data, engine), count_waits(config, data, engine)
    return {
        "family": family,
        "batch_size": config.batch_size,
        "gigaflop_per_image": operations / 1e9,
        "waits_in_a_step": waits,
        "fingerprint": engine.fingerprint,
        "steps": measure_steps(options, config, data, engine),
        "trainer": train(config, data, options.train_seconds) if options.zip and options.train_seconds else None,
    }


def main() -> None:
    parser = runs.make_parser(__doc__)
    parser.add_argument("--zip", type=Path, help="without it, steps are of noise and nothing is trained")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu only shows that this program runs"
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way of making steps")
    parser.add_argument("--steps", type=int, help="instead of seconds")
    parser.add_argument("--train-seconds", type=float, default=120.0, help="of the trainer, for each family")
    parser.add_argument("--peak", type=float, help="dense bf16 operations a second of the device, in 10^12")
    options = runs.parse(parser)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        print(json.dumps({"bench": "gpu", "measured": False, **runs.describe(options.threads)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        noise = None if options.zip else open_data(prepare_noise(Path(folder), PIXELS, 3))
        data = noise or runs.prepare_archive(options.zip, options.cache)
        report(options, [measure(options, family, data) for family in options.families])


def peak_of(options: argparse.Namespace, name: str) -> float | None:
    return options.peak or next((peak for known, peak in PEAKS.items() if known in name), None)


def report(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """A table for each family, and one JSON line."""
    for family in found:
        peak = peak_of(options, family["fingerprint"]["device"])
        print(
            f"{family['family']}, batches of {family['batch_size']}, {family['gigaflop_per_image']:.2f} GFLOP an image, {family['fingerprint']}"
        )
        print(f"{'':<10}{'':<8}{'images/s':>10}{'TFLOP/s':>9}{'of peak':>9}")
        for row in family["steps"]:
            tell(row, family["gigaflop_per_image"], peak)
        if trainer := family["trainer"]:
            tell(
                {"way": "trainer", "algorithms": "exact", "failed": None} | trainer, family["gigaflop_per_image"], peak
            )
            print(f"  waits in a step: {family['waits_in_a_step']}; {trainer['memory_mib']} MiB; it {trainer['end']}")
            for point in trainer["curve"]:
                print(
                    "  after {seconds:>6.0f} s, {examples:>9} examples: KID {kid:.5f} (floor {kid_floor:.5f}), FID {fid}".format(
                        **point
                    )
                )
    print(json.dumps({"bench": "gpu", "measured": True, "families": found, **runs.describe(options.threads)}))


def tell(row: dict[str, Any], gigaflop: float, peak: float | None) -> None:
    """One line of the table."""
    rate = row["images_per_second"]
    if rate is None:
        print(f"{row['way']:<10}{row['algorithms']:<8}{row['failed'] or 'too short to tell'}")
        return
    row["teraflops"] = rate * gigaflop / 1e3
    row["share_of_peak"] = row["teraflops"] / peak if peak else None
    share = f"{row['share_of_peak']:.1%}" if peak else "-"
    print(f"{row['way']:<10}{row['algorithms']:<8}{rate:>10.0f}{row['teraflops']:>9.2f}{share:>9}")


if __name__ == "__main__":
    main()
