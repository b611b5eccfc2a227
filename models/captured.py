"""A generator on a GPU as recordings: CUDA graphs, one for each number of rows.

The kernels of a small network run for less time than it takes to launch them one by one; a recording is launched as one. It reads
and writes memory of its own, so that inputs are copied in and the result is copied out.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST_RECORDINGS = 16  # of one network: it is asked for few sizes, with classes and with mixtures of them
LONGEST_SECONDS = (
    0.005  # of a forward: launching is a small part of longer ones, and recordings hold the memory that they work in
)
REHEARSALS = 3  # before a recording: what libraries set up at a first call must not be part of it

log = logging.getLogger(__name__)
recorder = threading.Lock()  # a process records one thing at a time


@dataclass(frozen=True)
class Recording:
    """A forward of fixed sizes; `inputs` and `result` are where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    result: Tensor

    def play(self, given: Sequence[Tensor]) -> Tensor:
        """What the network makes of these."""
        for own, each in zip(self.inputs, given, strict=True):
            own.copy_(each)
        self.graph.replay()
        return self.result.clone()


class Captured(nn.Module):
    """Does what the network does. A size is recorded when it first comes; what cannot be recorded runs as it is.

    Several threads may use it; all must launch on the device's default stream, which keeps their turns apart.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._recordings: dict[object, Recording | None] = {}
        self._turn = threading.Lock()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network does."""
        given = (z,) if labels is None else (z, labels)
        sizes = tuple((each.shape, each.dtype) for each in given)
        with self._turn:
            if sizes not in self._recordings and len(self._recordings) < MOST_RECORDINGS:
                self._recordings[sizes] = record(self.network, given, self._pool())
            recording = self._recordings.get(sizes)
            result: Tensor = self.network(z, labels) if recording is None else recording.play(given)
            return result

    def _pool(self) -> Any:
        """The memory in which its recordings work, one at a time; None before the first."""
        return next((each.graph.pool() for each in self._recordings.values() if each is not None), None)


def record(network: nn.Module, given: Sequence[Tensor], pool: Any = None) -> Recording | None:
    """A recording for inputs of these sizes; None where the device has none to give, or the network is not worth one."""
    inputs = [each.clone() for each in given]
    try:
        with recorder:
            if _rehearse(network, inputs) > LONGEST_SECONDS:
                return None
            graph = torch.cuda.CUDAGraph()
            # Other threads go on meanwhile: only what this one does may break the recording.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                result = network(*inputs)
        return Recording(graph, inputs, result)
    except RuntimeError as error:
        log.warning("A generator runs kernel by kernel, for it cannot be recorded: %s", error)
        return None


def _rehearse(network: nn.Module, inputs: Sequence[Tensor]) -> float:
    """The seconds of a forward, once all is set up, beside the stream that others use."""
    stage = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stage.wait_stream(torch.cuda.current_stream())
    begun = 0.0
    with torch.cuda.stream(stage):
        for _ in range(REHEARSALS):
            stage.synchronize()
            begun = time.perf_counter()
            network(*inputs)
        stage.synchronize()
    return time.perf_counter() - begun
