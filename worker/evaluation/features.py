"""Which network's features samples are compared in: Inception's, those of a classifier of the data's own labels, or random ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import ConfigError

Images = npt.NDArray[np.uint8]

BATCH = 256  # images at a time, which bounds memory


@dataclass(frozen=True)
class Features:
    """`embed` takes uint8 [n, H, W, C] to float32 [n, dim], and `classify` what it gave to int64 [n], the classes judged from it.

    `accuracy` is the share of held-out real images whose class it judges right; both are None where nothing learned the classes.
    """

    name: str
    dim: int
    embed: Callable[[Images], Tensor]
    classify: Callable[[Tensor], Tensor] | None = None
    accuracy: float | None = None

    @torch.inference_mode()
    def __call__(self, images: Images) -> Tensor:
        """uint8 [n, H, W, C], n > 0, to float32 [n, dim] on the device, in batches of bounded size, in order."""
        return torch.cat([self.embed(images[first : first + BATCH]) for first in range(0, len(images), BATCH)])


def choose_features(
    setting: str, folder: Path | None, device: torch.device, inception_weights: Path | None = None
) -> Features:
    """What `setting` asks for: "inception", "classifier" (of the prepared folder), "random", or of these the first at hand ("auto").

    "auto" takes Inception only where a GPU runs it, and never downloads: its weights are `inception_weights` or lie in torch hub's
    cache. Raises ConfigError when what was asked for cannot be had.
    """
    from worker.evaluation import inception

    weights = inception.find_weights(inception_weights)
    if setting == "inception":
        inception.check_installed()
        return inception.inception_features(weights or inception.download_weights(), device)
    if setting == "auto" and weights and device.type == "cuda" and inception.is_installed():
        return inception.inception_features(weights, device)
    if setting != "random":
        found = _classifier_features(folder, device) if folder else None
        if found is not None:
            return found
        if setting == "classifier":
            reason = "the data has no classifier: one is trained when enough labelled images are prepared"
            raise ConfigError([("/evaluation/features", reason)])
    from worker.evaluation.random_features import random_features

    return random_features(device)


def _classifier_features(folder: Path, device: torch.device) -> Features | None:
    from worker.evaluation.classifier import load_classifier

    classifier = load_classifier(folder, device)
    if classifier is None:
        return None
    head = classifier.network.head

    def embed(images: Images) -> Tensor:
        return torch.from_numpy(classifier.features(images)).to(device)

    def classify(features: Tensor) -> Tensor:
        judged: Tensor = head(features).argmax(1)
        return judged

    return Features("classifier", classifier.dim, embed, torch.inference_mode()(classify), classifier.accuracy)
