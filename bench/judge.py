"""A judge that training never sees: a classifier of other make and seed than the engine's own, and figures in its features.

    python -m bench.judge --train mnist-train.zip --test mnist-test.zip [--examples N]

trains it, or takes it from the cache, and prints what real images score: how often it is right on the test set, and FID and coverage of
training images in place of samples.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from bench.runs import Images, Labels, describe, make_parser, parse, prepare_archive
from models.fingerprint import cpu_has
from models.randomness import permutation
from worker.data.prepared import Data
from worker.evaluation.distances import squared_distances
from worker.evaluation.metrics import frechet_distance

SEED = 4_711
DIM = 64
NEIGHBOURS = 5
BATCH, RATE, WARM_UP, DECAY = 128, 3e-3, 0.1, 1e-2
SHIFT = 1  # pixels, either way
AT_A_TIME = 500


class Network(nn.Module):
    """Strided convolutions with group normalisation and GELU, then a dense layer whose outputs are the features."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        width = 24 if data.spec.channels == 1 else 48
        self.stages = nn.ModuleList(
            [
                nn.Conv2d(data.spec.channels, width, 5, stride=2, padding=2),
                nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
                nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            ]
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, stage.out_channels) for stage in self.stages)
        height, across = (-(-side // 8) for side in (data.spec.height, data.spec.width))
        self.dense = nn.Linear(2 * width * height * across, DIM)
        self.head = nn.Linear(DIM, len(data.spec.classes))

    def features(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] to [n, DIM]."""
        x = images.float() / 127.5 - 1
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = gelu(norm(stage(x)))
        return gelu(self.dense(x.flatten(1)))


@dataclass(frozen=True)
class Judged:
    """float32 [n, DIM], and int64 [n] the classes that images look like."""

    features: Tensor
    classes: Labels


class Judge:
    def __init__(self, network: Network) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def __call__(self, images: Images) -> Judged:
        """Of uint8 [n, H, W, C]."""
        chunks = (images[first : first + AT_A_TIME] for first in range(0, len(images), AT_A_TIME))
        features = torch.cat([self.network.features(_tensor(chunk)) for chunk in chunks])
        return Judged(features, self.network.head(features).argmax(1).numpy())


def load_judge(data: Data, cache: Path, examples: int | None = None) -> Judge:
    """The judge of these classes; trained on so many examples, repetitions included, unless it is in the cache."""
    examples = examples or (240_000 if data.spec.channels == 1 else 300_000)
    path = cache / f"judge-{data.sha256[:12]}-{examples}.pt"
    torch.manual_seed(SEED)
    network = Network(data)
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        _train(network, data, examples)
        torch.save(network.state_dict(), path)
    return Judge(network)


def _train(network: Network, data: Data, examples: int) -> None:
    """By AdamW, whose rate rises to its peak and falls to zero, both linearly. The images are moved about by a pixel."""
    steps, per_epoch = examples // BATCH, len(data.labels) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
    bf16 = cpu_has("amx_bf16") or cpu_has("avx512_bf16")
    order = np.empty(0, np.int64)
    for step in range(steps):
        place = step % max(1, per_epoch)
        if place == 0:
            order = permutation(SEED, step, len(data.labels))
        rows = np.sort(order[place * BATCH : (place + 1) * BATCH])
        moved = tuple(torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = network.head(network.features(_tensor(data.examples[rows]).roll(moved, (2, 3))))
        optimizer.zero_grad()
        cross_entropy(logits.float(), torch.from_numpy(data.labels[rows])).backward()
        share = (step + 1) / steps
        optimizer.param_groups[0]["lr"] = RATE * min(share / WARM_UP, (1 - share) / (1 - WARM_UP))
        optimizer.step()


def _tensor(images: Images) -> Tensor:
    """uint8 [n, C, H, W], channels last in memory."""
    return torch.from_numpy(np.array(images, order="C")).permute(0, 3, 1, 2)


class Reference:
    """Real images that others are compared with."""

    def __init__(self, real: Judged) -> None:
        self.features = real.features
        self._limits = torch.cat([rows.kthvalue(NEIGHBOURS + 1, 1).values for rows in self._distances(real.features)])

    def _distances(self, others: Tensor) -> Any:
        """Of each real image to all others, some real images at a time."""
        for first in range(0, len(self.features), AT_A_TIME):
            yield squared_distances(self.features[first : first + AT_A_TIME], others)

    def scores(self, judged: Judged, asked: Labels | None) -> dict[str, float | None]:
        """FID (arXiv:1706.08500), coverage of the real neighbourhoods (arXiv:2002.09797), and how many look as asked for."""
        nearest = torch.cat([rows.amin(1) for rows in self._distances(judged.features)])
        return {
            "fid": frechet_distance(judged.features, self.features),
            "coverage": float((nearest <= self._limits).double().mean()),
            "class_accuracy": None if asked is None else float((judged.classes == asked).mean()),
        }


def some(data: Data, n: int) -> tuple[Images, Labels]:
    """n images drawn without repetition, and their labels."""
    rows = np.sort(permutation(SEED, 0, len(data.labels))[:n])
    return data.examples[rows], data.labels[rows]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--train", type=Path, metavar="ZIP")
    parser.add_argument("--test", type=Path, metavar="ZIP")
    parser.add_argument("--examples", type=int, help="seen in training; default: 240,000 gray or 300,000 coloured ones")
    options = parse(parser, "train", "test")
    data, test = prepare_archive(options.train, options.cache), prepare_archive(options.test, options.cache)
    began = time.perf_counter()
    judge = load_judge(data, options.cache, options.examples)
    report(options, time.perf_counter() - began, real_scores(judge, data, test))


def real_scores(judge: Judge, data: Data, test: Data, n: int = 10_000) -> dict[str, float | None]:
    """What training images score against the test set, and how often the judge is right on the latter."""
    images, labels = some(data, n)
    on_test = judge(test.examples)
    accuracy = float((on_test.classes == test.labels).mean())
    return {"judge_accuracy": accuracy, **Reference(on_test).scores(judge(images), labels)}


def report(options: argparse.Namespace, seconds: float, scores: dict[str, float | None]) -> None:
    """One table and one JSON line."""
    print(f"{'judge':>10} {'test accuracy':>14} {'FID':>9} {'coverage':>9} {'class accuracy':>15}")
    print(
        "{:>9.1f}s {judge_accuracy:>14.4f} {fid:>9.4f} {coverage:>9.4f} {class_accuracy:>15.4f}".format(
            seconds, **scores
        )
    )
    print(json.dumps({"bench": "judge", "seconds": round(seconds, 1), **scores, **describe(options.threads)}))


if __name__ == "__main__":
    main()
