"""What the kernel says that there is of memory, read from folders that are laid out as it lays them out."""

import sys
from pathlib import Path

import pytest

from models.machine import spare_memory

GIB = 2**30
V2 = "0::/jobs/one\n"
V1 = "9:name=systemd:/\n4:cpu,memory:/jobs/one\n0::/\n"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine with 8 GiB available whose process is in these control groups."""
    meminfo = f"MemTotal:       33554432 kB\nMemAvailable:   {8 * 2**20} kB\nHugePages_Total:       0\n"
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


def group_v2(place: str, limit: str, used: int, cached: int) -> dict[str, str]:
    stat = f"anon 1\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}\n"
    return {f"{place}/memory.max": f"{limit}\n", f"{place}/memory.current": f"{used}\n", f"{place}/memory.stat": stat}


def test_without_a_group_it_is_what_is_available(tmp_path: Path) -> None:
    """Of a machine whose groups set no limit all that is available may be had."""
    assert spare_memory(machine(tmp_path / "none", "", {})) == 8 * GIB
    unlimited = group_v2("sys/fs/cgroup/jobs", "max", 7 * GIB, 0)
    assert spare_memory(machine(tmp_path / "unlimited", V2, unlimited)) == 8 * GIB


@pytest.mark.parametrize("place", ["sys/fs/cgroup/jobs/one", "sys/fs/cgroup/jobs", "sys/fs/cgroup"])
def test_the_limit_of_any_group_around_it_counts(tmp_path: Path, place: str) -> None:
    """The process's own group, one around it, or the container's, which it sees as the outermost; cached files give way."""
    root = machine(tmp_path, V2, group_v2(place, str(4 * GIB), 3 * GIB, 2 * GIB))
    assert spare_memory(root) == 3 * GIB


def test_groups_of_version_1(tmp_path: Path) -> None:
    """They stand elsewhere, and a limit that is none is a very large number."""
    place = "sys/fs/cgroup/memory"
    files = {
        f"{place}/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        f"{place}/memory.usage_in_bytes": f"{9 * GIB}\n",
        f"{place}/memory.stat": "",
        f"{place}/jobs/one/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{place}/jobs/one/memory.usage_in_bytes": f"{GIB}\n",
        f"{place}/jobs/one/memory.stat": f"total_active_file 0\ntotal_inactive_file {GIB // 4}\n",
    }
    assert spare_memory(machine(tmp_path, V1, files)) == GIB + GIB // 4


def test_a_group_that_has_too_much_leaves_nothing(tmp_path: Path) -> None:
    """Never less than nothing."""
    assert spare_memory(machine(tmp_path, V2, group_v2("sys/fs/cgroup", str(GIB), 2 * GIB, 0))) == 0


def test_other_systems_say_nothing(tmp_path: Path) -> None:
    """Without Linux's account nothing is known; with it, this machine has something to spare."""
    assert spare_memory(tmp_path) is None
    assert (spare_memory() or 0) > 0 or sys.platform != "linux"
