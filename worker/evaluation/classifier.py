"""A small classifier of a data set's own labels. What it computes before its last layer are features to compare samples in.

It is trained once, when the data set is prepared, in bounded work: so many examples, multiplications and bytes, however large the
data set is. Which examples it sees in which order, and its first weights, are fixed, so that it is the same for the same data on
the same engine. Training is SGD with Nesterov momentum (Sutskever et al. 2013) on cross-entropy; the learning rate rises linearly
for a fifth of the steps and falls linearly to zero over the rest.
"""

import copy
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, max_pool2d, pad, pixel_unshuffle, relu

from models.build import construct
from models.layers import Network, initialise
from models.prepared import faster_precision
from models.randomness import Purpose, shuffled
from worker.data import FEATURES_FILE
from worker.engine import Engine

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

DIM = 128
FEWEST_STAGES = 3
SMALLEST_MAP = 4  # pixels of the longer side that the last stage still sees, where there are so many
LARGEST_SIDE = 64  # larger images are first reduced to it

MOST_SEEN = 36_000  # examples, repetitions included
MOST_EPOCHS = 6
MOST_MACS = 4e11  # multiplications and additions, of both passes
MOST_BYTES = 2 * 2**30  # of examples that are read
MOST_HELD_OUT = 4_000  # of the tenth that it is tested on

FIGURES = ("accuracy", "baseline", "held_out")
SEED = 0
HELD_OUT = 10  # one in so many
BATCH = 64
MOST_THREADS = 4  # or the batch of each is too small to normalise by
EVALUATED = 256  # at a time, which bounds memory
RATE, WARM_UP, MOMENTUM, DECAY = 0.2, 0.2, 0.9, 5e-4
GAIN = 0.4  # of He's first weights: under batch normalisation smaller ones learn faster, and these were better than 0.2 and 1
GRAY, SPREAD = 128.0, 64.0


@dataclass(frozen=True)
class Shape:
    """Of the examples and the labels; the network follows from it."""

    height: int
    width: int
    channels: int
    classes: int

    @property
    def reduced(self) -> tuple[int, int]:
        """Height and width that the network sees: at most LARGEST_SIDE, in proportion."""
        shrink = min(1.0, LARGEST_SIDE / max(self.height, self.width))
        return max(1, round(self.height * shrink)), max(1, round(self.width * shrink))

    @property
    def widths(self) -> list[int]:
        """Channels of each stage: the last has DIM, each one before it half as many."""
        stages = max(FEWEST_STAGES, math.ceil(math.log2(max(self.reduced) / SMALLEST_MAP)))
        return [DIM >> stage for stage in reversed(range(stages))]


class Classifier(Network):
    """Stages of convolution, batch normalisation and maximum over 2 x 2, then the mean over what is left of the image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.reduced = shape.reduced
        inputs = [4 * shape.channels, *shape.widths]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False)
            for before, after in zip(inputs, shape.widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in shape.widths)
        self.head = nn.Linear(DIM, shape.classes)

    def initial_std(self, name: str, weight: Tensor) -> float:
        return GAIN * super().initial_std(name, weight)

    def features(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] to float32 [n, DIM], none negative."""
        x = images.float()
        if x.shape[2:] != self.reduced:
            x = adaptive_avg_pool2d(x, self.reduced)
        x = (x - GRAY) / SPREAD
        # Four neighbours become channels, for speed: a first stage at full resolution would cost more than all the others.
        x = pixel_unshuffle(pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2)
        x = x.contiguous(memory_format=torch.channels_last)
        for number, (convolve, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = norm(convolve(x))
            x = relu(x if number == len(self.stages) - 1 else max_pool2d(x, 2, ceil_mode=True))
        return x.float().mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] to float32 logits [n, classes]."""
        logits: Tensor = self.head(self.features(images))
        return logits.float()


@dataclass(frozen=True)
class FeatureClassifier:
    """A trained classifier. `accuracy` and `baseline` are shares of the `held_out` examples that it did not see: those it gets right,
    and those that always answering with their most frequent class would.
    """

    network: Classifier
    shape: Shape
    accuracy: float
    baseline: float
    held_out: int
    device: torch.device

    @property
    def tells_apart(self) -> bool:
        """Whether it does better than the baseline by more than chance explains: two standard errors."""
        return self.accuracy > self.baseline + 2 * math.sqrt(self.baseline * (1 - self.baseline) / self.held_out)

    @property
    def dim(self) -> int:
        """How many features there are."""
        return DIM

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """uint8 [n, H, W, C] to float32 [n, dim]. Raises ValueError for images of another shape than it was trained on."""
        return self._compute(self.network.features, images, DIM)

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """uint8 [n, H, W, C] to float32 [n, classes]. Raises ValueError for images of another shape than it was trained on."""
        return self._compute(self.network, images, self.shape.classes)

    @torch.no_grad()
    def _compute(self, function: Callable[[Tensor], Tensor], images: Images, columns: int) -> npt.NDArray[np.float32]:
        expected = (self.shape.height, self.shape.width, self.shape.channels)
        if images.shape[1:] != expected:
            raise ValueError(f"images of shape {images.shape[1:]}, expected {expected}")
        rows = np.empty((len(images), columns), np.float32)
        for first in range(0, len(images), EVALUATED):
            chunk = slice(first, first + EVALUATED)
            rows[chunk] = function(_tensor(images[chunk]).to(self.device)).cpu().numpy()
        return rows


def train_classifier(
    examples: Images, labels: Labels, classes: int, threads: int, tick: Callable[[float], None]
) -> FeatureClassifier:
    """Train on uint8 [N, H, W, C] and int64 [N] in 0 .. classes - 1, or -1 for those without a label, which are left out.

    `tick` is told the share of the work that is done, before every step; what it raises ends the training. At least 2 * BATCH
    examples have to have a label.
    """
    _, height, width, channels = examples.shape
    shape = Shape(height, width, channels, classes)
    network = construct(lambda: Classifier(shape))
    initialise(network, SEED, Purpose.INIT_FEATURES)
    known = np.flatnonzero(labels >= 0)
    known = known[_order(0, len(known))]
    held_out, seen = np.split(known, [len(known) // HELD_OUT])
    held_out = np.sort(held_out[:MOST_HELD_OUT])
    cpu = torch.device("cpu")
    engine = Engine(cpu, faster_precision(cpu), threads=1)  # for each of ours
    with engine.activated():
        engine.place(network)
        _fit(network, engine, examples, labels, seen, threads, tick)
        trained = FeatureClassifier(network.eval(), shape, 0.0, 0.0, len(held_out), engine.device)
        answers = trained.logits(examples[held_out]).argmax(1)
    accuracy = float((answers == labels[held_out]).mean())
    baseline = int(np.bincount(labels[held_out]).max()) / len(held_out)
    return replace(trained, accuracy=accuracy, baseline=baseline)


def _fit(
    network: Classifier,
    engine: Engine,
    examples: Images,
    labels: Labels,
    rows: Labels,
    threads: int,
    tick: Callable[[float], None],
) -> None:
    """Each thread computes the gradient of its share of the batch, on one core of its own.

    Torch's own threads spin while they wait for one another: beside another busy program both would slow down many times over.
    """
    steps = _steps(network, examples, len(rows))
    optimizer = _Momentum(network)
    order = np.concatenate([rows[_order(1 + epoch, len(rows))] for epoch in range(-(-steps * BATCH // len(rows)))])
    copies = [network.train(), *(_sharing(network) for _ in range(min(threads, MOST_THREADS) - 1))]

    def differentiate(copied: Classifier, share: Labels) -> None:
        with engine.autocast():
            logits = copied(_tensor(examples[share]))
        loss = cross_entropy(logits, torch.from_numpy(labels[share]), reduction="sum") / BATCH
        loss.backward()  # type: ignore[no-untyped-call]

    with ThreadPoolExecutor(len(copies)) as pool:
        for step in range(steps):
            tick(step / steps)
            batch = np.sort(order[BATCH * step : BATCH * (step + 1)])  # as they lie on the disk
            list(pool.map(differentiate, copies, [batch[first :: len(copies)] for first in range(len(copies))]))
            done = (step + 1) / steps
            optimizer.step(copies, RATE * min(done / WARM_UP, (1 - done) / (1 - WARM_UP)))


def _sharing(network: Classifier) -> Classifier:
    """A copy with gradients and statistics of its own, and the very weights of the other."""
    copied = copy.deepcopy(network)
    for mine, its in zip(copied.parameters(), network.parameters(), strict=True):
        mine.data = its.data
    return copied


def _steps(network: Classifier, examples: Images, rows: int) -> int:
    """Of training: as many as the bounds on work allow, and one at least."""
    bounds = (MOST_SEEN, MOST_EPOCHS * rows, MOST_MACS / _macs_each(network), MOST_BYTES / examples[0].nbytes)
    return max(1, int(min(bounds) // BATCH))


def _macs_each(network: Classifier) -> int:
    """Multiplications and additions for one example, forwards and twice as many backwards."""
    height, width = (-(-side // 2) for side in network.reduced)
    total = network.head.weight.numel()
    for stage in network.stages.parameters():
        total += height * width * stage.numel()
        height, width = -(-height // 2), -(-width // 2)
    return 3 * total


class _Momentum:
    """torch.optim.SGD would do the same, but its constructor imports the compiler, which takes as long as half of the training."""

    def __init__(self, network: nn.Module) -> None:
        self._pairs = [(parameter, torch.zeros_like(parameter)) for parameter in network.parameters()]

    @torch.no_grad()
    def step(self, copies: Sequence[nn.Module], rate: float) -> None:
        """Move every parameter by the sum of its copies' gradients, then forget these. Weights decay; gains and biases do not."""
        each = zip(*(copied.parameters() for copied in copies), strict=True)
        for (parameter, velocity), shared in zip(self._pairs, each, strict=True):
            gradient = parameter.mul(DECAY) if parameter.ndim > 1 else torch.zeros_like(parameter)
            for copied in shared:
                assert copied.grad is not None, "every parameter takes part in the loss"
                gradient.add_(copied.grad)
                copied.grad = None
            velocity.mul_(MOMENTUM).add_(gradient)
            parameter.sub_(gradient.add_(velocity, alpha=MOMENTUM), alpha=rate)


def _order(place: int, n: int) -> Labels:
    return shuffled(SEED, place, Purpose.SUBSET, n)


def _tensor(images: Images) -> Tensor:
    """uint8 [n, C, H, W] of [n, H, W, C], in memory as it was."""
    return torch.from_numpy(np.array(images, order="C")).permute(0, 3, 1, 2)


def save(classifier: FeatureClassifier, folder: Path) -> None:
    """Write features.safetensors, the same bytes for the same classifier. Raises OSError."""
    about = {name: getattr(classifier, name) for name in FIGURES} | {"shape": asdict(classifier.shape)}
    weights = {name: value.contiguous() for name, value in classifier.network.state_dict().items()}
    (folder / FEATURES_FILE).write_bytes(to_bytes(weights, {"classifier": json.dumps(about, sort_keys=True)}))


def load_classifier(folder: Path, device: torch.device = torch.device("cpu")) -> FeatureClassifier | None:  # noqa: B008
    """The classifier of a prepared folder; None where there is none, or none that can be read by this version."""
    try:
        with safe_open(folder / FEATURES_FILE, framework="pt") as file:
            about = json.loads((file.metadata() or {})["classifier"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        shape = Shape(**about["shape"])
        network = construct(lambda: Classifier(shape))
        network.load_state_dict(weights)
        found = FeatureClassifier(
            network.eval().to(device), shape, device=device, **{name: about[name] for name in FIGURES}
        )
    except (FileNotFoundError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError):
        return None
    return found
