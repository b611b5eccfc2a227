"""How much memory there was, and when there is too little."""

import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from models.machine import figures, spare_memory

# How libraries on the CPU say it, in the message of a RuntimeError: torch, oneDNN, and the C++ library.
TOLD_AS = ("DefaultCPUAllocator: ", "could not create a primitive", "std::bad_alloc")

SHARE = 0.9  # of what the machine has to spare; the rest is for whatever else grows
LEAST = 2**29  # bytes that a run may always try to get: a small one goes on where next to nothing seems to be left


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU, in numpy, or in torch on the CPU, which says so in its message only.

    So is an error that another one met while it was handled: what is cut off by it may fail in its own way.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in TOLD_AS):
        return True
    met = error.__cause__ or error.__context__
    return met is not None and is_out_of_memory(met)


def within_the_machine(processes: int = 1) -> AbstractContextManager[None]:
    """Within, memory that the machine does not have is refused, by an error that says so, where the kernel would end a process.

    Each of so many processes may have its share. On Linux, and not with CUDA, which maps far more than it uses.
    """
    spare = None if torch.cuda.is_available() else spare_memory()
    return nullcontext() if spare is None else limited(max(LEAST, int(SHARE * spare)) // processes)


@contextmanager
def limited(more: int) -> Iterator[None]:
    """Within, this process gets so many bytes more than it has, and no more. Files that it maps do not count. Linux only."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    has = figures(Path("/proc/self/status"))["VmData"] * 1024
    most = min(limit for limit in (has + more, *before) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def peak_memory() -> int:
    """The most bytes that this process has had of the GPU, or, without one, of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    try:
        return figures(Path("/proc/self/status"))["VmHWM"] * 1024
    except OSError:  # not Linux, where the kernel's own figure counts what the parent had, too
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
