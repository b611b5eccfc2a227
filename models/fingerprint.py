"""The engine's fingerprint: what bits depend on besides the config, the data and the seed."""

from typing import Any

import numpy as np
import torch


def fingerprint(device: torch.device, precision: str, threads: int) -> dict[str, Any]:
    """As JSON. Under equal fingerprints training and sampling give equal bits; `numpy` is in it because it draws z."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "precision": precision,
        "threads": threads,
        "torch": str(torch.__version__),  # it is a class of its own, which a checkpoint may not hold
        "numpy": np.__version__,
        "isa": f"cuda {torch.version.cuda}" if cuda else _cpu_isa(),
    }


def cpu_has(feature: str) -> bool:
    """Whether the CPU has this instruction set, such as "amx_bf16" or "avx512_bf16"."""
    return bool(torch.cpu.get_capabilities().get(feature))


def _cpu_isa() -> str:
    """Such as "AVX512 avx512_bf16 amx_bf16 L1 49152 L2 2097152": kernels go by instructions, the blocks of a sum by caches."""
    found = torch.cpu.get_capabilities()
    extras = [name for name in ("avx512_bf16", "avx512_fp16", "amx_bf16") if found.get(name)]
    caches = [f"L1 {found.get('l1d_cache_size')}", f"L2 {found.get('l2_cache_size')}"]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *extras, *caches])
