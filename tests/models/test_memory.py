"""A limit on this process's own memory, which is lifted again."""

import mmap
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import memory
from tests.source import HOUSE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a process is Linux's")
MIB = 2**20


# In a process of its own: one that has run for long may have freed so much that it asks the kernel for nothing.
BEYOND = """
import resource
import numpy as np
import torch
from models import memory
from tests.source import HOUSE
before = resource.getrlimit(resource.RLIMIT_DATA)
with memory.limited(32 << 20):
    try:
        {allocate}
        raise SystemExit("it was given")
    except (RuntimeError, MemoryError) as refused:
        assert memory.is_out_of_memory(refused)
    torch.zeros(4 << 20, dtype=torch.uint8)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
{allocate}
"""


@pytest.mark.parametrize(
    "allocate", ["torch.zeros(64 << 20, dtype=torch.uint8)", "np.zeros(64 << 20, np.uint8)", "bytearray(64 << 20)"]
)
def test_what_is_beyond_the_limit_is_refused(allocate: str) -> None:
    """By an error that is recognised; what fits is given, and afterwards the limit is as it was."""
    program = BEYOND.format(allocate=allocate)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    """A data set is mapped rather than read, and may be larger than memory."""
    path = tmp_path / "data"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    with (
        memory.limited(32 * MIB),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        assert len(data) == 256 * MIB


def test_a_limit_from_outside_is_kept() -> None:
    """A process that was given less by whoever started it does not take more."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.limited(2**40):
        outer = resource.getrlimit(resource.RLIMIT_DATA)[0]
        with memory.limited(2**41):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == outer
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    ("spare", "processes", "share"), [(2**34, 1, 0.9 * 2**34), (2**34, 4, 0.9 * 2**32), (0, 1, memory.LEAST)]
)
def test_each_process_has_its_share(monkeypatch: pytest.MonkeyPatch, spare: int, processes: int, share: float) -> None:
    """Most of what is spare, shared out; a small run may always try."""
    monkeypatch.setattr(memory, "spare_memory", lambda: spare)
    has = memory.figures(Path("/proc/self/status"))["VmData"] * 1024
    with memory.within_the_machine(processes):
        assert abs(resource.getrlimit(resource.RLIMIT_DATA)[0] - has - share) < 16 * MIB


@pytest.mark.parametrize(("cuda", "spare"), [(True, 2**30), (False, None)])
def test_no_limit_where_it_would_be_wrong(monkeypatch: pytest.MonkeyPatch, cuda: bool, spare: int | None) -> None:
    """CUDA maps far more than it uses, and another system does not say what it has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(memory, "spare_memory", lambda: spare)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.within_the_machine():
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def failing_clean_up() -> None:
    try:
        raise MemoryError
    finally:
        raise RuntimeError("unexpected pos 42703872")


def test_what_failed_for_it_is_recognised_too() -> None:
    """Whoever cleans up after memory ran out may fail in a way of its own, and oneDNN says it in other words."""
    with pytest.raises(RuntimeError) as caught:
        failing_clean_up()
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
