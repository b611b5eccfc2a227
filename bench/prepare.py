"""How fast a data set is prepared, and in how much memory: python -m bench.prepare [ARCHIVE...] (zips of images in class folders)

Without archives, two are made of noise, in the shapes of MNIST and CIFAR-10. Each is uploaded to a `ganvil up` with default
settings and timed until it is ready; the targets are for the two. Then each archive is prepared by one process and by one a core, and by the peer: the usual single-process loop over zipfile and
Pillow that keeps everything in memory. Then the same image is prepared 10,000 and 60,000 times, to see whether memory grows.
Prints a table and one JSON line. Memory is each process's peak resident set, of the main one and summed over all; CPU seconds are
of all processes and tell what a busy machine hides. The load is the average of the last minute when the row was measured.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from app.cli.demo import service

HOUSE = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.02
NOISE = {"noise-28x28.zip": (60_000, (28, 28)), "noise-32x32x3.zip": (50_000, (32, 32, 3))}
TARGET_SECONDS = {"noise-28x28.zip": 15.0, "noise-32x32x3.zip": 25.0}  # from upload to ready

PEER = """
import io, sys, zipfile
from pathlib import Path
import numpy as np
from PIL import Image

archive, out = sys.argv[1:]
images, labels = [], []
with zipfile.ZipFile(archive) as file:
    names = sorted(name for name in file.namelist() if not name.endswith("/"))
    classes = sorted({name.split("/")[0] for name in names})
    for name in names:
        with Image.open(io.BytesIO(file.read(name))) as image:
            images.append(np.array(image))
        labels.append(classes.index(name.split("/")[0]))
np.save(Path(out) / "examples.npy", np.stack(images))
np.save(Path(out) / "labels.npy", np.array(labels))
"""


class Use(NamedTuple):
    """What a process has used so far."""

    peak_bytes: int
    cpu_seconds: float


def used_by(session: int) -> dict[int, Use]:
    """What every process in a session has used, as far as it is still there."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit():
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
                peak = 1024 * int(status.get("VmHWM", "0 kB").split()[0])
                found[int(entry.name)] = Use(peak, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def measure(command: list[str]) -> dict[str, float]:
    """Run a command to its end."""
    used: dict[int, Use] = {}
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=HOUSE, start_new_session=True) as process:
        while process.poll() is None:
            used |= {pid: use for pid, use in used_by(process.pid).items() if use.peak_bytes}
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(sum(use.cpu_seconds for use in used.values()), 2),
        "load": round(os.getloadavg()[0], 1),
        "main_mib": round(used[process.pid].peak_bytes / 2**20, 1),
        "all_mib": round(sum(use.peak_bytes for use in used.values()) / 2**20, 1),
        "processes": len(used),
    }


def prepare(archive: Path, processes: int, folder: Path) -> dict[str, Any]:
    request = {"source": {"kind": "archive", "path": str(archive.resolve())}}
    (folder / "prepare.json").write_text(json.dumps(request), encoding="utf-8")
    result = measure([sys.executable, "-m", "worker.data", str(folder), "--processes", str(processes)])
    document = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    accuracy = document.get("features", {}).get("accuracy")
    return {**result, "examples": document["examples"], "sha256": document["sha256"][:12], "accuracy": accuracy}


def repeat(image: bytes, count: int, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number % 10}/{number}.png", image)
    return path


def make_noise(name: str, folder: Path) -> Path:
    """Pictures that differ, in ten classes. Noise compresses worst, so that no real picture of its size is a larger file."""
    count, shape = NOISE[name]
    random = np.random.default_rng(0)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            picture = io.BytesIO()
            Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(picture, "PNG", compress_level=1)
            archive.writestr(f"{number % 10}/{number}.png", picture.getvalue())
    return path


def upload_all(archives: list[Path], folder: Path) -> dict[str, float]:
    """Seconds from the upload of each until the service says that it is ready, one after the other."""
    seconds = {}
    with service(folder) as client:
        for archive in archives:
            began = time.perf_counter()
            client.wait_until_prepared(client.upload(archive).id)
            seconds[archive.name] = round(time.perf_counter() - began, 2)
    return seconds


def measure_all(archives: list[Path], folder: Path) -> list[dict[str, Any]]:
    """The rows of the table."""
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    for archive in archives:
        rows += [
            {"data": archive.name, "by": f"ganvil, {processes}", **prepare(archive, processes, folder)}
            for processes in sorted({1, cores})
        ]
        peer = measure([sys.executable, "-c", PEER, str(archive.resolve()), str(folder)])
        rows.append({"data": archive.name, "by": "peer", **peer, "examples": rows[-1]["examples"]})
    with zipfile.ZipFile(archives[0]) as file:
        image = file.read(next(entry for entry in file.namelist() if not entry.endswith("/")))
    for count in (10_000, 60_000):
        archive = repeat(image, count, folder / f"{count}.zip")
        rows.append({"data": f"one image {count} times", "by": f"ganvil, {cores}", **prepare(archive, cores, folder)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", nargs="*", type=Path, metavar="ARCHIVE")
    given = parser.parse_args().archives
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = given or [make_noise(each, folder) for each in NOISE]
        report(upload_all(archives, folder), measure_all(archives, folder))


def report(uploads: dict[str, float], rows: list[dict[str, Any]]) -> None:
    """Two tables and one JSON line."""
    for name, seconds in uploads.items():
        target = TARGET_SECONDS.get(name)
        missed = "" if target is None or seconds <= target else ": MISSED"
        print(f"{name:<28}upload to ready {seconds:>7.2f} s" + (f" (target {target:g} s{missed})" if target else ""))
    print(
        f"{'data':<28}{'by':<12}{'examples':>9}{'seconds':>9}{'CPU s':>8}{'load':>6}{'images/s':>10}{'main MiB':>10}{'all MiB':>9}"
        f"{'accuracy':>10}"
    )
    for row in rows:
        rate = row["examples"] / row["seconds"]
        accuracy = f"{accuracy:.4f}" if (accuracy := row.get("accuracy")) is not None else "-"
        print(
            f"{row['data']:<28}{row['by']:<12}{row['examples']:>9}{row['seconds']:>9.2f}{row['cpu_seconds']:>8.2f}"
            f"{row['load']:>6.1f}{rate:>10.0f}{row['main_mib']:>10.1f}{row['all_mib']:>9.1f}"
            f"{accuracy:>10}"
        )
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"bench": "prepare", "cores": cores, "upload_to_ready_seconds": uploads, "rows": rows}))


if __name__ == "__main__":
    main()
