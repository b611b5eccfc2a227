"""The engine against a plain loop of the same dcgan, in one run: python -m bench.engine [--threads N] [--seconds S] [--rounds R]

Plain: the same networks, float32, contiguous, torch.optim.Adam as it comes, no average, no R1, no account of itself. Engine:
`worker.trainer.train` with the preset `fast` as a user gets it, with its checkpoints, grids and metrics. Both train on the same
prepared data with the same threads, in turns, so that a busy machine slows both.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.plain import Plain
from models.build import build_discriminator, build_generator
from models.config import TrainingConfig
from models.presets import resolve
from worker.data.prepared import Data, open_data
from worker.engine import choose_engine
from worker.runlog import RunLog
from worker.trainer.loop import train

RATIO_TARGET = 2.0  # on a CPU with AMX; others gain less


def prepare(folder: Path, size: int, channels: int, n: int = 8192) -> Path:
    """Noise of the right shape: speed does not depend on what the images show. Enough of it for the preset's full width."""
    rng = np.random.default_rng(0)
    np.save(folder / "examples.npy", rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8))
    np.save(folder / "labels.npy", np.arange(n) % 10)
    classes = [{"name": str(c), "count": n // 10} for c in range(10)]
    about = {"examples": n, "height": size, "width": size, "channels": channels, "classes": classes, "sha256": "0" * 64}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def plain_loop(config: TrainingConfig, data: Data) -> Plain:
    """The preset's own networks in the plain loop."""
    device = choose_engine(config).device
    G = build_generator(config.network, data.spec, 0, device)
    D = build_discriminator(config.network, data.spec, 0, device)
    return Plain(G, D, data, z_dim=config.network.z_dim, batch_size=config.batch_size, rate=1e-3)


def engine_rate(config: TrainingConfig, data: Data, seconds: float) -> float:
    """Images a second of a whole run, its grids, metrics and checkpoints included."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        log = RunLog(Path(folder) / "events.jsonl")
        train(config, data, Path(folder), lambda: time.perf_counter() - started > seconds, log)
        log.close()
        lines = (Path(folder) / "events.jsonl").read_text(encoding="utf-8").splitlines()
        seen = json.loads(lines[-1])["examples_seen"]
    return float(seen / (time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(prepare(Path(folder), options.size, options.channels))
        config = resolve("fast", {"threads": options.threads}, data.spec, budget={"examples": 10**9})
        torch.set_num_threads(options.threads)
        plain = plain_loop(config, data)
        plain.rate(1.0)
        engine_rate(config, data, 1.0)
        rates = [
            (plain.rate(options.seconds), engine_rate(config, data, options.seconds)) for _ in range(options.rounds)
        ]
    report(options, choose_engine(config).fingerprint, rates)


def report(options: argparse.Namespace, fingerprint: dict[str, object], rates: list[tuple[float, float]]) -> None:
    """One table and one JSON line."""
    ratio = statistics.median(engine / plain for plain, engine in rates)
    print(f"{options.size} x {options.size} x {options.channels}, {fingerprint}")
    print(f"{'round':>6} {'plain img/s':>12} {'engine img/s':>13} {'ratio':>6}")
    for number, (plain, engine) in enumerate(rates, start=1):
        print(f"{number:>6} {plain:>12.0f} {engine:>13.0f} {engine / plain:>6.2f}")
    print(f"engine / plain: {ratio:.2f} (median; the target on a CPU with AMX, and only there, is {RATIO_TARGET})")
    summary = {
        "bench": "engine",
        "size": options.size,
        "channels": options.channels,
        "plain_images_per_second": round(statistics.median(plain for plain, _ in rates)),
        "engine_images_per_second": round(statistics.median(engine for _, engine in rates)),
        "ratio": round(ratio, 2),
        **fingerprint,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
