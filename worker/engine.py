"""What the numbers of a run depend on besides its config and data: device, precision, threads, torch and instruction set."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.config import ConfigError, TrainingConfig
from models.determinism import make_deterministic
from models.fingerprint import fingerprint
from models.machine import available_cores
from models.prepared import faster_precision, lay_out_channels_last


@dataclass(frozen=True)
class Engine:
    """Two runs under equal engines give equal bits."""

    device: torch.device
    precision: str  # "fp32" or "bf16"
    threads: int
    processes: int = 1

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that must be equal for equal bits, as JSON."""
        processes = {"processes": self.processes} if self.processes > 1 else {}
        return fingerprint(self.device, self.precision, self.threads) | processes

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes inside it run in bf16 where that is safe. One context a pass: it caches the weights that it casts."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, network: nn.Module) -> nn.Module:
        """The network with the weights of its convolutions laid out channels last, and with them all that they compute."""
        lay_out_channels_last(network.to(self.device))
        return network

    @contextmanager
    def activated(self) -> Iterator[None]:
        """Sets what torch keeps per process, and puts it back. Denormals count as zero: they cost a lot and mean nothing here."""
        threads = torch.get_num_threads()
        torch.set_flush_denormal(True)  # first: the threads of the pool inherit it
        torch.set_num_threads(self.threads)
        make_deterministic(self.device)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)


def choose_engine(config: TrainingConfig, processes: int = 1) -> Engine:
    """The first CUDA device if there is one, else the CPU; "auto" precision becomes what this hardware is faster in.

    Raises ConfigError for more threads than there are cores: they would fight for them, and slow everything down a hundredfold.
    """
    cores = available_cores()
    if (config.threads or 1) > cores:
        raise ConfigError(
            [("/threads", f"{config.threads} threads on a machine of {cores} cores; use at most {cores}")]
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = faster_precision(device) if config.precision == "auto" else config.precision
    return Engine(device, precision, config.threads or torch.get_num_threads(), processes)
