"""When there is too little memory."""

import torch


def is_out_of_memory(error: Exception) -> bool:
    """On a GPU, in numpy, or in torch on the CPU, which says so in its message only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)
