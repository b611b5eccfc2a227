"""No server is measured that answers with other pictures: for a seed all must give the same."""

import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.serving.contenders import Contender, Site
from bench.serving.peers.pictures import Pictures

SEEDS = (0, 7, 1_000_000_007, 2**53 - 1)
COMPANY = 32
CLOSE = {
    "fp32": (1, 0.001),
    "bf16": (48, 1.0),
}  # the largest difference in levels of 255, and the share of values that differ
MEAN = 2.0  # levels, of any precision


class GateFailed(Exception):
    """A server answers with something else; the message says which, and how far off it is."""


class Gate:
    """Knows the right pictures: the bare generator's in float32, one at a time."""

    def __init__(self, site: Site) -> None:
        torch.set_num_threads(site.threads)
        bare = Pictures(site.snapshot, "fp32")
        self._right = {seed: bare.make([seed])[0] for seed in SEEDS}
        self._close = CLOSE[site.precision.partition(" ")[0]]
        self._passed: set[str] = set()

    def check(self, contender: Contender, address: str) -> None:
        """Once for each server. Raises GateFailed."""
        if contender.name in self._passed or contender.name == "ceiling":
            return
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as http:
            for seed, right in self._right.items():
                self._compare(contender.name, seed, right, decoded(contender.picture(http, seed)))
            if contender.ours:
                in_company(contender, http)
        self._passed.add(contender.name)

    def _compare(self, name: str, seed: int, right: NDArray[np.uint8], given: NDArray[np.uint8]) -> None:
        if given.shape != right.shape:
            raise GateFailed(f"{name} gives seed {seed} the shape {given.shape}, and it is {right.shape}")
        difference = np.abs(given.astype(int) - right)
        largest, share = self._close
        if difference.max() > largest or (difference > 0).mean() > share or difference.mean() > MEAN:
            raise GateFailed(
                f"{name} gives seed {seed} another picture: up to {difference.max()} levels off, {difference.mean():.3f} on average"
            )


def decoded(picture: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture)))


def in_company(contender: Contender, http: httpx.Client) -> None:
    """Ours must give the same bytes alone and among others. Raises GateFailed."""
    alone = [contender.picture(http, seed) for seed in SEEDS]
    seeds = [seed for number in range(COMPANY) for seed in (*SEEDS, number + 100)]
    with ThreadPoolExecutor(COMPANY) as pool:
        together = list(pool.map(lambda seed: contender.picture(http, seed), seeds))
    if any(data != alone[SEEDS.index(seed)] for seed, data in zip(seeds, together, strict=True) if seed in SEEDS):
        raise GateFailed(f"{contender.name} gives other bytes to a seed that comes with others")
