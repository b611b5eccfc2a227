"""Equal bits for equal work on a GPU. A CPU with a fixed number of threads needs nothing."""

import os

import torch


def make_deterministic(device: torch.device) -> None:
    """Have this process compute on CUDA only what comes out the same every time; call it before its first work there."""
    if device.type != "cuda":
        return
    os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts, and is only then deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their speed at the moment
