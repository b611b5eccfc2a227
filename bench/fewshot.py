"""What augmentation is worth when there are few images: the preset `few-shot` with and without it, on the same seeds and budget.

    python -m bench.fewshot --zip cifar10-train.zip --class horse [--images N] [--seeds N] [--examples N]

Takes so many images of one class, and compares samples with the remaining images of the class, which training never saw, and with
those that it did. Features are of a judge of all the classes. A sample counts as memorised when it lies nearer to a training image,
or to the mirror image of one, than all but 5 % of the unseen images do.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import runs
from bench.judge import Judge, load_judge
from bench.runs import Images
from models.config import TrainingConfig
from models.presets import resolve
from models.randomness import permutation
from worker.data.prepared import Data
from worker.evaluation.distances import nearest
from worker.evaluation.memorisation import CLOSE, Calibration, memorisation
from worker.evaluation.metrics import kid

WITHOUT = {"augment": {"kind": "none"}}
COLUMNS = ("kid", "kid_low", "kid_high", "kid_of_seen", "memorisation", "memorisation_ratio")


def split(data: Data, name: str, images: int) -> tuple[Images, Images]:
    """So many images of a class, drawn without repetition, and the remaining ones."""
    if name not in data.spec.classes:
        raise SystemExit(f"--class: there is no class {name!r} but {', '.join(data.spec.classes)}")
    rows = np.flatnonzero(data.labels == data.spec.classes.index(name))
    if images >= len(rows):
        raise SystemExit(f"--images: the class {name} has {len(rows)} images, and some have to remain")
    rows = rows[permutation(0, 0, len(rows))]
    return data.examples[np.sort(rows[:images])], data.examples[np.sort(rows[images:])]


class Comparison:
    """Of samples with the images that training saw and with those that it did not."""

    def __init__(self, judge: Judge, seen: Images, unseen: Images) -> None:
        self._judge = judge
        self.seen, self.unseen = judge(seen).features, judge(unseen).features
        mirrored = judge(np.ascontiguousarray(seen[:, :, ::-1])).features
        self._either_way = torch.cat([self.seen, mirrored])  # what training may have seen
        self._calibration = Calibration(nearest(self.unseen, self._either_way)[0])

    def __call__(self, images: Images) -> dict[str, float]:
        return self.scores(self._judge(images).features)

    def scores(self, features: Tensor) -> dict[str, float]:
        """Samples that repeat what training saw have a small `kid_of_seen` and a large `memorisation`."""
        value, low, high = kid(features, self.unseen)
        copies = memorisation(features, self._either_way, self._calibration)
        of_seen = kid(features, self.seen).value
        return dict(zip(COLUMNS, (value, low, high, of_seen, copies.share.value, copies.ratio), strict=True))


def configured(options: argparse.Namespace, data: Data, seed: int, changes: dict[str, Any]) -> TrainingConfig:
    budget = {"examples": options.examples} if options.examples else None
    overrides = {"threads": options.threads, **changes}
    return resolve("few-shot", overrides, data.spec, budget=budget, seed=seed, hardware=runs.hardware())


def measure(config: TrainingConfig, data: Data, compare: Comparison, samples: int) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory() as folder:
        events = runs.train(config, data, Path(folder) / "run")
        images, _ = runs.draw(events, Path(folder) / "run", data, samples)
    verdict = runs.last(events, "verdict")["data"]["verdict"] if config.evaluation.samples else None
    mirrored = runs.last(events, "started")["data"]["mirrored"]
    about = {"augment": config.augment.kind, "mirrored": mirrored, "seed": config.seed, "verdict": verdict}
    return about | runs.took(events) | compare(images)


def main() -> None:
    parser = runs.make_parser(__doc__)
    parser.add_argument("--zip", type=Path, help="of images in class folders, such as those of CIFAR-10")
    parser.add_argument("--class", dest="name", default="horse", help="default: horse")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument(
        "--examples", type=int, help="to train on, repetitions included; default: the preset's own length"
    )
    parser.add_argument("--samples", type=int, default=4_000)
    options = runs.parse(parser, "zip")
    whole = runs.prepare_archive(options.zip, options.cache)
    seen, unseen = split(whole, options.name, options.images)
    compare = Comparison(load_judge(whole, options.cache), seen, unseen)
    with tempfile.TemporaryDirectory() as folder:
        data = runs.prepare_images(seen, Path(folder))
        rows = [
            measure(configured(options, data, seed, changes), data, compare, options.samples)
            for seed in range(options.seeds)
            for changes in (WITHOUT, {})
        ]
    report(options, kid(compare.seen, compare.unseen).value, rows)


def report(options: argparse.Namespace, floor: float, rows: list[dict[str, Any]]) -> None:
    """One table and one JSON line."""
    print(f"{options.images} images of {options.name}; KID of these against the unseen ones is {floor:.5f}")
    print(
        f"{'augmented by':<14}{'seed':>5}{'examples':>10}{'seconds':>9}{'KID':>10}{'95 % interval':>21}{'KID of seen':>13}"
        f"{'memorised':>11}{'ratio':>7}  verdict"
    )
    for row in rows:
        interval = f"{row['kid_low']:.5f} .. {row['kid_high']:.5f}"
        print(
            f"{row['augment']:<14}{row['seed']:>5}{row['examples']:>10}{row['seconds']:>9.0f}{row['kid']:>10.5f}{interval:>21}"
            f"{row['kid_of_seen']:>13.5f}{row['memorisation']:>11.2%}{row['memorisation_ratio']:>7.2f}  {row['verdict']}"
        )
    means = [
        {name: statistics.mean(row[name] for row in rows if (row["augment"] == "none") == plain) for name in COLUMNS}
        for plain in (True, False)
    ]
    lower = 1 - means[1]["kid"] / means[0]["kid"]
    copied, anyway = means[1]["memorisation"], means[0]["memorisation"]
    print(
        f"KID is {lower:.0%} lower with augmentation; memorised: {copied:.2%} with, {anyway:.2%} without, {CLOSE:.0%} of unseen images"
    )
    given = {name: getattr(options, name) for name in ("name", "images", "seeds", "samples")}
    summary = {"bench": "fewshot", "data": options.zip.name, **given, "kid_lower_by": round(lower, 3)}
    print(json.dumps({**summary, "kid_floor": floor, "rows": rows, **runs.describe(options.threads)}))


if __name__ == "__main__":
    main()
