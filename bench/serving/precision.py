"""The precision at which the generator is fastest on this machine, which is then the peers'."""

import time
from pathlib import Path

import torch

from bench.serving.peers.pictures import PRECISIONS, Pictures

BATCH, SECONDS = 64, 1.0


def fastest(snapshot: Path, threads: int) -> str:
    """One of PRECISIONS, by images a second in batches of 64."""
    torch.set_num_threads(threads)
    return max(PRECISIONS, key=lambda precision: rate(Pictures(snapshot, precision)))


def rate(pictures: Pictures) -> float:
    pictures.make(range(BATCH))
    made, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        made += len(pictures.make(range(BATCH)))
    return made / (time.perf_counter() - began)
