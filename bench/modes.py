"""Which of 1,000 modes are found: three digits on top of each other as red, green and blue (arXiv:1611.02163, section 3.3.2).

    python -m bench.modes --train mnist-train.zip --test mnist-test.zip [--seconds S] [--samples N]

The preset `quality` and a plain DCGAN are trained for as many seconds on the same stacked digits; a judge of single digits, trained on
`--train`, says which three each sample shows. The row of real images is of stacked digits of `--test`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench import runs
from bench.judge import Judge, load_judge
from bench.plain import train_plain
from bench.runs import Images, Labels
from models.randomness import Purpose, uniform_bits
from worker.data.prepared import Data, open_data
from worker.evaluation.metrics import mode_coverage

STACKED = 60_000
CHANNELS = 3
SEED = 0
TOOK = ("seconds", "evaluating", "examples")


def stack(data: Data, n: int) -> Images:
    """uint8 [n, H, W, 3]: each channel a digit of its own, drawn with repetition."""
    bits = uniform_bits(SEED, range(n), Purpose.SUBSET, CHANNELS).astype(np.uint64)
    rows = ((bits * np.uint64(len(data.labels))) >> np.uint64(32)).astype(np.int64)
    return np.concatenate([data.examples[rows[:, channel]] for channel in range(CHANNELS)], axis=3)


def prepare_stacked(data: Data, cache: Path, n: int) -> Data:
    """Made and prepared once."""
    folder = cache / f"stacked-{data.sha256[:12]}-{n}"
    if (folder / "dataset.json").exists():
        return open_data(folder)
    return runs.prepare_images(stack(data, n), folder)


def shares(labels: Labels) -> list[float]:
    """Of each mode, where digits are drawn independently."""
    digits = np.bincount(labels) / len(labels)
    return [float(x) for x in np.einsum("i,j,k->ijk", digits, digits, digits).flatten()]


def found(judge: Judge, images: Images, of_modes: list[float], classes: int) -> dict[str, Any]:
    """How many modes are among the images, and KL(images || data)."""
    mode = np.zeros(len(images), np.int64)
    for channel in range(CHANNELS):
        mode = classes * mode + judge(images[..., channel : channel + 1]).classes
    return mode_coverage(mode, of_modes)._asdict()


def main() -> None:
    parser = runs.make_parser(__doc__)
    parser.add_argument("--train", type=Path, metavar="ZIP")
    parser.add_argument("--test", type=Path, metavar="ZIP")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--samples", type=int, default=25_600)
    parser.add_argument("--stacked", type=int, default=STACKED, help="examples to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="quality")
    options = runs.parse(parser, "train", "test")
    digits, test = (runs.prepare_archive(path, options.cache) for path in (options.train, options.test))
    judge, data = load_judge(digits, options.cache), prepare_stacked(digits, options.cache, options.stacked)
    real = {"by": "real images", **dict.fromkeys(TOOK)}
    trained, images, _ = runs.train_preset(options, data, {})
    made = [(real, stack(test, options.samples)), (trained, images), train_plain(options, data)]
    of_modes, classes = shares(digits.labels), len(digits.spec.classes)
    report(options, [row | found(judge, images, of_modes, classes) for row, images in made])


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One table and one JSON line."""
    least = (rows[0]["total"] - 1) / (2 * options.samples)  # what chance alone makes of it, to first order
    print(f"{options.samples:,} samples; among so many, reverse KL of the data itself is about {least:.3f}")
    print(f"{'':<14}{'seconds':>9}{'evaluating':>12}{'examples':>10}{'modes':>8}{'of':>7}{'reverse KL':>12}")
    for row in rows:
        spent = ("-" if row[name] is None else f"{row[name]:.0f}" for name in TOOK)
        print(
            f"{row['by']:<14}{'{:>9}{:>12}{:>10}'.format(*spent)}{row['found']:>8}{row['total']:>7}{row['reverse_kl']:>12.4f}"
        )
    given = {name: getattr(options, name) for name in ("seconds", "samples", "stacked", "seed", "preset")}
    print(json.dumps({"bench": "modes", **given, "rows": rows, **runs.describe(options.threads)}))


if __name__ == "__main__":
    main()
