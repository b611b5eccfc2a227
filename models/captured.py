"""A generator on a GPU as recordings: CUDA graphs, one for each number of rows.

The kernels of a small network run for less time than it takes to launch them one by one; a recording is launched as one. It reads
and writes memory of its own, so that inputs are copied in and the result is copied out.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

MOST_RECORDINGS = 16  # of one network: it is asked for few sizes, with classes and with mixtures of them
REHEARSALS = 3  # before a recording: what libraries set up at a first call must not be part of it
# Of a forward: launching is a small part of longer ones, and a recording keeps the memory that it works in.
LONGEST_SECONDS = 0.005

log = logging.getLogger(__name__)
recorder = threading.Lock()  # a process records one thing at a time
player = threading.Lock()  # all recordings work in the same memory
# Set when the device failed to record: what is left of that is not to be trusted with another try.
broken = threading.Event()


class Graph(Protocol):
    """What recordings ask of `torch.cuda.CUDAGraph`."""

    def replay(self) -> None: ...


@dataclass(frozen=True)
class Recording:
    """A forward of fixed sizes; `inputs` and `result` are where it reads and writes."""

    graph: Graph
    inputs: Sequence[Tensor]
    result: Tensor

    def play(self, given: Sequence[Tensor]) -> Tensor:
        """What the network makes of these."""
        with player:
            for own, each in zip(self.inputs, given, strict=True):
                own.copy_(each)
            self.graph.replay()
            return self.result.clone()


def record(network: nn.Module, given: Sequence[Tensor]) -> Recording | None:
    """A recording for inputs of these sizes, which gave the network's very bits; None where there is none to have, or it is not worth it."""
    if broken.is_set() or not given[0].is_cuda:
        return None
    with recorder, torch.cuda.device(given[0].device):
        inputs = [each.clone() for each in given]
        stage().wait_stream(torch.cuda.current_stream())
        expected, seconds = _rehearse(network, inputs)
        torch.cuda.current_stream().wait_stream(stage())
        if seconds > LONGEST_SECONDS:
            return None
        try:
            recording = _record(network, inputs)
            if torch.equal(recording.play(given), expected):
                return recording
            reason = "it gave other bits"
        except RuntimeError as error:
            reason = str(error)
        broken.set()
        log.warning("Generators run kernel by kernel from now on, for one could not be recorded: %s", reason)
        return None


def _rehearse(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """What the network gives, and the least seconds that it took."""
    result, seconds = None, float("inf")
    with torch.cuda.stream(stage()):
        for _ in range(REHEARSALS):
            begun = time.perf_counter()
            result = network(*inputs)
            stage().synchronize()
            seconds = min(seconds, time.perf_counter() - begun)
    assert result is not None
    return result, seconds


def _record(network: nn.Module, inputs: Sequence[Tensor]) -> Recording:
    graph = torch.cuda.CUDAGraph()
    # Around it once more, for a recording that fails leaves its stream the current one. Other threads go on meanwhile: only what
    # this one does may break the recording.
    with (
        torch.cuda.stream(stage()),
        torch.cuda.graph(graph, pool=pool(), stream=stage(), capture_error_mode="thread_local"),
    ):
        result = network(*inputs)
    return Recording(graph, inputs, result)


@cache
def stage() -> torch.cuda.Stream:
    """Where recordings are made, beside the stream that is used otherwise: libraries keep memory for each stream they meet."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@cache
def pool() -> Any:
    """The memory in which all recordings work, one at a time."""
    return torch.cuda.graph_pool_handle()


class Captured(nn.Module):
    """Does what the network does. A size is recorded when it first comes; what has no recording runs as it is.

    Several threads may use it; all must launch on the device's default stream, which keeps their turns apart.
    """

    def __init__(
        self, network: nn.Module, record: Callable[[nn.Module, Sequence[Tensor]], Recording | None] = record
    ) -> None:
        super().__init__()
        self.network = network
        self._record = record
        self._recordings: dict[object, Recording | None] = {}

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network does."""
        given = (z,) if labels is None else (z, labels)
        sizes = tuple((each.shape, each.dtype) for each in given)
        if sizes not in self._recordings and len(self._recordings) < MOST_RECORDINGS:
            self._recordings[sizes] = self._record(self.network, given)
        recording = self._recordings.get(sizes)
        result: Tensor = self.network(z, labels) if recording is None else recording.play(given)
        return result
