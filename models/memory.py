"""How much memory there was, and when there is too little."""

import resource
import sys
from pathlib import Path

import torch


def is_out_of_memory(error: Exception) -> bool:
    """On a GPU, in numpy, or in torch on the CPU, which says so in its message only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)


def peak_memory() -> int:
    """The most bytes that this process has had of the GPU, or, without one, of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux, where the kernel's own figure counts what the parent had, too
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) * 1024
