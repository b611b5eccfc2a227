"""The classifier that a data set with labels gets beside its examples: whether, and the process that trains it.

    python -m worker.data.features FOLDER --threads N

trains on FOLDER/examples.npy and labels.npy, prints how far it is (a number from 0 to 1 a line) and at last what dataset.json says of
it as JSON, and writes features.safetensors unless the classes cannot be told apart. It stops when its standard input ends.

It is a process of its own because a data set is good without it: whatever ends it, be it a lack of memory, ends nothing else.
"""

import argparse
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from models.machine import available_cores
from worker.data import FEATURES_FILE
from worker.data.progress import Progress, Stopped
from worker.stop import StopSignal

LEAST_CLASSES = 2
LEAST_OF_A_CLASS = 10
LEAST_LABELLED = 200
PATIENCE_SECONDS = 0.1
PIPE_BYTES = 1 << 16
TOO_FEW = (
    f"no classifier was trained for comparing samples: it takes {LEAST_LABELLED} labelled images, and {LEAST_CLASSES} classes of"
    f" {LEAST_OF_A_CLASS} images or more"
)
ALIKE = "no classifier was trained for comparing samples: the classes look alike to it"
ENDED = "no classifier was trained for comparing samples: it ended with status {status}, most likely for lack of memory or disk"

Found = dict[str, Any]


def are_enough(counts: Iterable[int]) -> bool:
    """Whether so many images of each class are enough to train on."""
    numbers = list(counts)
    return sum(numbers) >= LEAST_LABELLED and sum(count >= LEAST_OF_A_CLASS for count in numbers) >= LEAST_CLASSES


def train_features(folder: Path, document: Found, processes: int, progress: Progress) -> None:
    """Write FOLDER/features.safetensors and say so in `document`, the contents of dataset.json; or say there why not.

    Raises Stopped.
    """
    if not are_enough(entry["count"] for entry in document["classes"]):
        document["report"]["features"] = TOO_FEW
        return
    status, found = _run(folder, min(processes, available_cores()), document["examples"], progress)
    if status == 0 and (folder / FEATURES_FILE).exists():
        document["features"] = found
        return
    (folder / FEATURES_FILE).unlink(missing_ok=True)
    document["report"]["features"] = ALIKE if status == 0 else ENDED.format(status=status)


def _run(folder: Path, threads: int, images: int, progress: Progress) -> tuple[int, Found]:
    """Its exit status, and the last thing that it said."""
    command = [sys.executable, "-m", "worker.data.features", str(folder), "--threads", str(threads)]
    with subprocess.Popen(  # noqa: S603 - our own module in our own directory
        command,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # of torch's, for each of ours
        stdin=subprocess.PIPE,  # nothing is written: it ends with this process
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        try:
            said, passed = b"", 0
            found: Found = {}
            while True:
                progress.tick()
                if not select.select([child.stdout], [], [], PATIENCE_SECONDS)[0]:
                    continue
                if not (piece := os.read(child.stdout.fileno(), PIPE_BYTES)):
                    child.wait()
                    break
                *lines, said = (said + piece).split(b"\n")
                last = json.loads(lines[-1]) if lines else None
                if isinstance(last, float):
                    progress.advance(round(last * images) - passed)
                    passed = round(last * images)
                elif last is not None:
                    found = last
        finally:
            child.kill()
    return child.returncode, found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.data.features")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(arguments)
    should_stop = StopSignal(sys.stdin.fileno())
    from worker.evaluation.classifier import (  # torch takes a second, and only this process needs it
        save,
        train_classifier,
    )

    def tick(share: float) -> None:
        if should_stop():
            raise Stopped
        _say(share)

    labels = np.load(options.folder / "labels.npy", allow_pickle=False)
    examples = np.load(options.folder / "examples.npy", mmap_mode="r", allow_pickle=False)
    try:
        classifier = train_classifier(examples, labels, int(labels.max()) + 1, options.threads, tick)
    except Stopped:
        return 1
    if classifier.tells_apart:
        save(classifier, options.folder)
        content = (options.folder / FEATURES_FILE).read_bytes()
        about = {
            "accuracy": classifier.accuracy,
            "baseline": classifier.baseline,
            "held_out": classifier.held_out,
            "dim": classifier.dim,
        }
        _say({**about, "sha256": sha256(content).hexdigest()})
    return 0


def _say(value: float | Found) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - it is how it speaks to the process that started it


if __name__ == "__main__":
    sys.exit(main())
