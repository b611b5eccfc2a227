"""How good the samples are after so many seconds of training, in the features of a judge that training never sees.

    python -m bench.quality --train mnist-train.zip --test mnist-test.zip [--seconds S] [--unconditional] [--plain]

Trains with the preset that somebody who names none gets, draws from the last snapshot and compares with the test set; `--plain`
also trains a plain DCGAN for as many seconds. FID depends on the judge's features: its ratio to that of real images does so far less.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench import runs
from bench.judge import Reference, load_judge, real_scores
from bench.plain import train_plain
from models.presets import DEFAULT_PRESET

TOOK = ("seconds", "evaluating", "examples")


def main() -> None:
    parser = runs.make_parser(__doc__)
    parser.add_argument("--train", type=Path, metavar="ZIP")
    parser.add_argument("--test", type=Path, metavar="ZIP")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--unconditional", action="store_true", help="without labels, where there are some")
    parser.add_argument("--plain", action="store_true", help="also a plain DCGAN")
    options = runs.parse(parser, "train", "test")
    data, test = (runs.prepare_archive(path, options.cache) for path in (options.train, options.test))
    judge = load_judge(data, options.cache)
    reference = Reference(judge(test.examples))
    real = {"by": "real images", **dict.fromkeys(TOOK), **real_scores(judge, data, test, options.samples)}
    without = {"network": {"conditional": False}} if options.unconditional else {}
    trained, images, asked = runs.train_preset(options, data, without)
    rows = [real, trained | reference.scores(judge(images), asked)]
    if options.plain:
        trained, images = train_plain(options, data)
        rows.append(trained | reference.scores(judge(images), None))
    report(options, rows)


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One table and one JSON line."""
    for row in rows:
        row["fid_over_real"] = row["fid"] / rows[0]["fid"]
    labels = "without labels" if options.unconditional else "with labels where there are any"
    print(f"{options.train.name}, {labels}; the judge is right on {rows[0]['judge_accuracy']:.2%} of the test set")
    print(
        f"{'':<14}{'seconds':>9}{'evaluating':>12}{'examples':>10}{'FID':>10}{'/ real':>9}{'coverage':>10}{'class accuracy':>16}"
    )
    for row in rows:
        spent = ("-" if row[name] is None else f"{row[name]:.0f}" for name in TOOK)
        accuracy = "-" if row["class_accuracy"] is None else f"{row['class_accuracy']:.2%}"
        print(
            f"{row['by']:<14}{'{:>9}{:>12}{:>10}'.format(*spent)}{row['fid']:>10.4f}{row['fid_over_real']:>9.2f}{row['coverage']:>10.4f}"
            f"{accuracy:>16}"
        )
    given = {name: getattr(options, name) for name in ("seconds", "samples", "seed", "preset", "unconditional")}
    about = {"bench": "quality", "data": options.train.name, **given}
    print(json.dumps({**about, "rows": rows, **runs.describe(options.threads)}))


if __name__ == "__main__":
    main()
