"""What the cores can do without a service: python -m bench.serving.bare SNAPSHOT PRECISION THREADS

One thread makes images in batches, a pool of one thread a core encodes them meanwhile, as somebody would who wants 1,024 files fast.
For each line of its input, `forward` (no encoding), `pillow` (PNG as peers make it) or `ours` (as this service does), it makes 1,024
and prints the seconds.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.formats import FORMATS
from bench.serving.peers.pictures import Pictures, png
from models.machine import available_cores

N, BATCH, TOGETHER = 1024, 64, 16
AHEAD = 8  # batches that may wait for the encoders

Encode = Callable[[NDArray[np.uint8]], bytes]


def forward(pictures: Pictures, first: int) -> None:
    images = np.empty((N, pictures.info.height, pictures.info.width, pictures.info.channels), np.uint8)
    for start in range(0, N, BATCH):
        images[start : start + BATCH] = pictures.make(range(first + start, first + start + BATCH))


def encoded(pictures: Pictures, first: int, encode: Encode, pool: ThreadPoolExecutor) -> list[bytes]:
    """The files, in order."""

    def group(images: NDArray[np.uint8]) -> list[bytes]:
        return [encode(image) for image in images]

    waiting: deque[Future[list[bytes]]] = deque()
    files: list[bytes] = []
    for start in range(first, first + N, BATCH):
        images = pictures.make(range(start, start + BATCH))
        waiting += [pool.submit(group, images[at : at + TOGETHER]) for at in range(0, BATCH, TOGETHER)]
        while len(waiting) > AHEAD * BATCH // TOGETHER:
            files += waiting.popleft().result()
    return files + [file for each in waiting for file in each.result()]


def main(snapshot: str, precision: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    pictures = Pictures(Path(snapshot), precision)
    with ThreadPoolExecutor(available_cores()) as pool:
        kinds: dict[str, Callable[[int], object]] = {
            "forward": lambda first: forward(pictures, first),
            "pillow": lambda first: encoded(pictures, first, png, pool),
            "ours": lambda first: encoded(pictures, first, FORMATS["png"].encode, pool),
        }
        for number, line in enumerate(sys.stdin):
            began = time.perf_counter()
            kinds[line.strip()](number * N)
            print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
