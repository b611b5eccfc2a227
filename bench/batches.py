"""A batch against the bare generator and encoder: python -m bench.batches [--samples N] [--threads N] [--size S] [--container C]

Bare: one loop that makes 64 samples, encodes them, and forgets them, with the very functions that a batch uses, on one thread. A
batch: a row, a worker's claim, its child, shards in file storage, an archive that is hashed; timed from the claim to `succeeded`,
the start of the child included, and from the child's first line on as well. Both run at the niceness of a batch's child.

CPU milliseconds a sample, the batch's with those of starting its child, tell what a busy machine hides.

Memory is the child's resident set, looked at all the while: its peak while the first tenth is made, and its peak at the end.
Prints a table and one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app import batches
from app.formats import FORMATS
from app.registry import Resolved
from app.settings import Settings
from app.tables import Batch
from models.machine import available_cores
from tests.generators import publish_generator
from worker.batch.__main__ import NICENESS
from worker.batch.samples import load
from worker.batching import batch_next
from worker.service import Service

HOUSE = Path(__file__).resolve().parents[1]
TOGETHER = 64
RATIO_TARGET = 0.8
FLAT_MIB = 64.0  # that the peak may grow by after the first tenth
LOOK_SECONDS = 0.25


def bare(folder: Path, sha256: str, info: dict[str, Any], samples: int, threads: int) -> list[float]:
    """Samples a second of the loop, and CPU seconds a sample."""
    resolved = Resolved("bench:1", "bench:1", sha256, "", info, pinned=True, examples_seen=0, kid=None)
    with ThreadPoolExecutor(1) as forwards:
        maker = load(folder, resolved, forwards, threads=threads, label=None, truncation=1.0, format=FORMATS["png"])
        maker.make(range(TOGETHER))
        began, cpu_before = time.perf_counter(), time.process_time()
        for first in range(0, samples, TOGETHER):
            maker.make(range(first, min(samples, first + TOGETHER)))
        return [samples / (time.perf_counter() - began), (time.process_time() - cpu_before) / samples]


def bare_alone(service: Service, model: Resolved, samples: int) -> list[float]:
    """The same in a process of its own, as niced as a batch's child."""
    told = {
        "folder": str(service.storage.local_path(model.snapshot_key)),
        "sha256": model.sha256,
        "info": model.info,
        "samples": samples,
        "threads": service.settings.sampler_threads,
    }
    command = ["nice", "-n", str(NICENESS), sys.executable, "-m", "bench.batches", "--bare", json.dumps(told)]
    done = subprocess.run(command, cwd=HOUSE, check=True, capture_output=True, text=True)
    return [float(number) for number in json.loads(done.stdout)]


class Memory:
    """Peaks of the resident set of the child of a run directory, in MiB."""

    def __init__(self, service: Service, batch_id: str) -> None:
        self._service, self._batch_id = service, batch_id
        self.by_done: list[tuple[int, float]] = []
        self._over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def peak(self, *, until: int) -> float:
        return max((mib for done, mib in self.by_done if done <= until), default=0.0)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            resident = sum(map(resident_mib, children(str(self._service.runs.resolve()))))
            with self._service.database.reading() as session:
                done = session.get_one(Batch, self._batch_id).progress["done"]
            self.by_done.append((done, resident))


def children(folder: str) -> list[int]:
    """The processes that were given a directory in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{folder}/" in (entry / "cmdline").read_text().replace("\0", " "):
                found.append(int(entry.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    except OSError:
        return 0.0


def make_batch(service: Service, model: Resolved, samples: int, container: str) -> dict[str, Any]:
    """Rates, memory and size of one batch."""
    with service.database.writing() as session:
        request = batches.Request(model.label, f"0-{samples - 1}", container=container)
        batch_id = batches.submit(session, request).id
    memory = Memory(service, batch_id)
    began, cpu_before = time.perf_counter(), cpu_of_children()
    with memory.watched():
        assert batch_next(service, {})
    seconds = time.perf_counter() - began
    with service.database.reading() as session:
        batch = session.get_one(Batch, batch_id)
        shards = batches.shards(session, batch_id)
    assert batch.status == "succeeded", batch.error
    assert batch.archive is not None
    return {
        "rate": samples / seconds,
        "rate_of_child": batch.progress["samples_per_second"],
        "cpu": (cpu_of_children() - cpu_before) / samples,
        "seconds": seconds,
        "shards": len(shards),
        "mib": batch.archive["size"] / 2**20,
        "early_mib": memory.peak(until=samples // 10),
        "peak_mib": memory.peak(until=samples),
    }


def cpu_of_children() -> float:
    """Seconds of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--container", default="tar")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        told = json.loads(options.bare)
        print(json.dumps(bare(Path(told.pop("folder")), **told)))
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder) / "data", sampler_threads=options.threads, log_level="warning")
        service = Service(settings)
        service.database.migrate()
        shape = {"size": options.size, "channels": 3, "width": options.width, "z_dim": 128}
        model = publish_generator(service.database, service.storage, Path(folder), "bench", **shape)
        few = max(TOGETHER, options.samples // 10)  # before and after, so that a busy moment slows both
        rates = [bare_alone(service, model, few)]
        made = make_batch(service, model, options.samples, options.container)
        rates.append(bare_alone(service, model, few))
        service.database.close()
    report(options, [sum(pair) / 2 for pair in zip(*rates, strict=True)], made)


def report(options: argparse.Namespace, bare: list[float], made: dict[str, Any]) -> None:
    """One table and one JSON line."""
    bare_rate, bare_cpu = bare
    ratio, ratio_of_child = made["rate"] / bare_rate, made["rate_of_child"] / bare_rate
    growth = made["peak_mib"] - made["early_mib"]
    print(
        f"{options.samples} PNG of {options.size} x {options.size} x 3, {options.threads} threads, {available_cores()} cores"
    )
    print(f"{'':<24} {'samples/s':>10} {'of bare':>8} {'CPU ms':>8}")
    print(f"{'bare, one thread':<24} {bare_rate:>10.0f} {1:>8.2f} {1000 * bare_cpu:>8.3f}")
    print(f"{'batch, claim to end':<24} {made['rate']:>10.0f} {ratio:>8.2f} {1000 * made['cpu']:>8.3f}")
    print(f"{'batch, without start':<24} {made['rate_of_child']:>10.0f} {ratio_of_child:>8.2f}")
    print(f"{made['shards']} shards, {made['mib']:.0f} MiB, {made['seconds']:.1f} s")
    print(f"child's memory: {made['early_mib']:.0f} MiB at most in the first tenth, {made['peak_mib']:.0f} MiB in all")
    summary = {
        "bench": "batches",
        "samples": options.samples,
        "container": options.container,
        "bare_samples_per_second": round(bare_rate),
        "samples_per_second": round(made["rate"]),
        "ratio": round(ratio, 3),
        "ratio_without_start": round(ratio_of_child, 3),
        "bare_cpu_ms": round(1000 * bare_cpu, 3),
        "cpu_ms": round(1000 * made["cpu"], 3),
        "shards": made["shards"],
        "early_mib": round(made["early_mib"], 1),
        "peak_mib": round(made["peak_mib"], 1),
        "targets_met": {"ratio": ratio >= RATIO_TARGET, "memory": growth <= FLAT_MIB},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
