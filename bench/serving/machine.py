"""What the numbers were measured on, and whether anything else was running."""

import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import torch

from models.machine import available_cores

QUIET = 0.5  # busy cores, above which others disturb


def describe() -> dict[str, object]:
    return {
        "date": date.today().isoformat(),  # noqa: DTZ011 - of the person who reads it
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": available_cores(),
        "torch": torch.__version__,
    }


def _cpu() -> str:
    """As `lscpu` names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def busy_cores(seconds: float = 1.0) -> float:
    """How many cores others keep busy while this process sleeps; what the host takes away counts too."""
    before, began = _busy(), time.monotonic()
    time.sleep(seconds)
    return (_busy() - before) / (time.monotonic() - began)


def _busy() -> float:
    """CPU-seconds of all cores since the machine started: all but idle and waiting for disks (proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def watch(what: str) -> float:
    """Say how busy the machine is before `what`, and warn when it is not quiet."""
    busy, average = busy_cores(), os.getloadavg()[0]
    warning = "  WARNING: something else runs on this machine" if busy > QUIET else ""
    print(f"{what}: {busy:.2f} cores busy before it, load average {average:.2f}{warning}", file=sys.stderr, flush=True)
    return busy
