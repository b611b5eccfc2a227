"""The loop: seeds in order, a few runs in flight, shards one after the other."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from app.sampling import ranges
from models.machine import available_cores
from worker.batch.samples import Made, Maker
from worker.batch.writers import WRITERS, Naming, Run, Sink

RUN_SAMPLES = 64  # made together: as many as the largest forward takes
RUN_BYTES = 2**24  # of pixels; of large pictures fewer are made together
UNSHIPPED = 4  # shards that may wait for the worker to store them
POLL_SECONDS = 0.05


class Stopped(Exception):
    """It was asked to."""


@dataclass(frozen=True)
class Plan:
    """What is to be made of `seeds`: the shards from `first_shard` on."""

    seeds: Sequence[range]
    shard_size: int
    first_shard: int
    container: str
    extension: str  # of each sample
    classes: Sequence[str]
    sample_bytes: int  # of one sample's pixels


@dataclass(frozen=True)
class Part:
    """Seeds of one run, all in one shard. `first` is the place of the first one in the batch."""

    shard: int
    first: int
    seeds: Sequence[int]


def make_shards(plan: Plan, maker: Maker, folder: Path, stop: Callable[[], bool], tell: Callable[..., None]) -> None:
    """Write each shard to a file in `folder` and `tell` of it when it is whole. Raises Stopped."""
    folder.mkdir(exist_ok=True)
    naming = Naming(ranges.distinct(plan.seeds), plan.extension, plan.classes)
    total = ranges.count(plan.seeds)
    began, before = time.monotonic(), plan.first_shard * plan.shard_size
    for index, made in groupby(_made(parts(plan), maker, stop), key=lambda pair: pair[0].shard):
        samples = min(plan.shard_size, total - index * plan.shard_size)
        _wait_for_room(folder, stop)
        about = _write(folder / f"{index:05d}", made, plan, naming, index, samples)
        done = index * plan.shard_size + samples
        rate = round((done - before) / (time.monotonic() - began), 1)
        encoder = None if maker.format is None else maker.format.encoder
        tell(index=index, samples=samples, engine=maker.engine, encoder=encoder, samples_per_second=rate, **about)


def parts(plan: Plan) -> Iterator[Part]:
    """The runs of all shards that are to be made."""
    size = max(1, min(RUN_SAMPLES, RUN_BYTES // plan.sample_bytes))
    first = plan.first_shard * plan.shard_size
    left = ranges.part(plan.seeds, first, ranges.count(plan.seeds))
    for shard, seeds in enumerate(ranges.parts(left, plan.shard_size), plan.first_shard):
        for run in ranges.parts(seeds, size):
            listed = [seed for each in run for seed in each]
            yield Part(shard, first, listed)
            first += len(listed)


def _made(parts: Iterator[Part], maker: Maker, stop: Callable[[], bool]) -> Iterator[tuple[Part, Made]]:
    """What comes of each part, in order: each thread waits for a forward or encodes, so that all cores are at work."""
    threads = available_cores()
    waiting: deque[tuple[Part, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(threads, "make")
    try:
        for part in parts:
            if stop():
                raise Stopped
            waiting.append((part, pool.submit(maker.make, part.seeds)))
            if len(waiting) > threads:
                part, made = waiting.popleft()  # noqa: PLW2901
                yield part, made.result()
        while waiting:
            part, made = waiting.popleft()
            yield part, made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(
    path: Path, made: Iterator[tuple[Part, Made]], plan: Plan, naming: Naming, index: int, samples: int
) -> dict[str, Any]:
    with Sink(path) as sink:
        writer = WRITERS[plan.container](sink, naming, index, samples)
        for part, what in made:
            writer.add(Run(part.first, part.seeds, what))
        body = writer.close()
    return {"path": f"{path.parent.name}/{path.name}", "size": sink.size, "body": body, "sha256": sink.sha256}


def _wait_for_room(folder: Path, stop: Callable[[], bool]) -> None:
    """The worker takes each file away that it has stored: a slow storage must not fill this disk."""
    while sum(1 for _ in folder.iterdir()) >= UNSHIPPED:
        if stop():
            raise Stopped
        time.sleep(POLL_SECONDS)
