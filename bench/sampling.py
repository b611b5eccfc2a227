"""What a generator in memory gives, and what encoding costs beside it: python -m bench.sampling [--seconds S] [--only NAME ...]

Generators as the service prepares them, untrained, on this machine's GPU or else its CPU: seeds to pixels in memory, 64 at a time; then
the same and a PNG of each, on as many threads as there are cores, while the next are made. The share of encoding is that of one thread
which does both. Prints a table and one JSON line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from app import interpreter
from app.formats import FORMATS
from app.storage import Storage
from bench.serving import machine
from models import captured
from models.machine import available_cores
from tests.generators import store_generator
from worker.batch.samples import Maker, load

GENERATORS: dict[str, dict[str, Any]] = {
    "dcgan 32": {"family": "dcgan", "size": 32, "channels": 3, "width": 64, "z_dim": 128},
    "r3gan 32": {"family": "r3gan", "size": 32, "channels": 3},
    "r3gan 256": {"family": "r3gan", "size": 256, "channels": 3},
}
TOGETHER = 64
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """Images a second of pixels alone and of files, and the share of encoding in the time of one thread that does both."""

    name: str
    generated: float
    encoded: float
    encoding_share: float


def measure(name: str, seconds: float, threads: int) -> Row:
    """One generator, which is loaded as a batch loads it."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as forwards:
        storage = Storage(f"file://{folder}/objects")
        resolved = store_generator(storage, Path(folder), "bench", **GENERATORS[name])
        snapshot = storage.local_path(resolved.snapshot_key)
        assert snapshot is not None
        options: dict[str, Any] = {"threads": threads, "label": None, "truncation": 1.0}
        pixels, files = (load(snapshot, resolved, forwards, format=form, **options) for form in (None, FORMATS["png"]))
        generated = rate(pixels.make, seconds)
        beside = rate_beside(files, max(LEAST_ROUNDS, round(generated * seconds / TOGETHER)))
        images, texts = pixels.make(range(TOGETHER)).images, [None] * TOGETHER
        encodings = rate(lambda _: FORMATS["png"].encode_many(images, texts), seconds)
        return Row(name, generated, beside, generated / (generated + encodings))


def rate(work: Callable[[range], object], seconds: float) -> float:
    """Images a second of one batch after the other."""
    work(range(TOGETHER))
    done, began = 0, time.perf_counter()
    for seeds in batches():
        work(seeds)
        done += 1
        if time.perf_counter() - began >= seconds and done >= LEAST_ROUNDS:
            break
    return done * TOGETHER / (time.perf_counter() - began)


def rate_beside(maker: Maker, rounds: int) -> float:
    """Images a second as a batch makes them: forwards take turns, and encoding goes on beside them."""
    with ThreadPoolExecutor(available_cores()) as pool:
        pool.submit(maker.make, range(TOGETHER)).result()
        began = time.perf_counter()
        for _ in pool.map(maker.make, islice(batches(), rounds)):
            pass
        return rounds * TOGETHER / (time.perf_counter() - began)


def batches() -> Iterator[range]:
    """Of seeds, without end."""
    for number in count(1):
        yield range(number * TOGETHER, (number + 1) * TOGETHER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--unrecorded", action="store_true", help="on a GPU: kernel by kernel, without CUDA graphs")
    parser.add_argument("--only", nargs="+", choices=GENERATORS, default=list(GENERATORS), metavar="NAME")
    options = parser.parse_args()
    interpreter.tune()
    if options.unrecorded:
        captured.MOST_RECORDINGS = 0
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    rows = [measure(name, options.seconds, options.threads) for name in options.only]
    print(f"{device}, {available_cores()} cores\n{'generator':<12}{'images/s':>12}{'with PNG':>12}{'encoding':>10}")
    for row in rows:
        print(f"{row.name:<12}{row.generated:>12,.0f}{row.encoded:>12,.0f}{row.encoding_share:>10.0%}")
    print(
        json.dumps({"bench": "sampling", "device": device, **machine.describe(), "rows": [asdict(row) for row in rows]})
    )


if __name__ == "__main__":
    main()
