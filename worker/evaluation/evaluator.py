"""Evaluations of a run: the same real images, the same features, ever new samples."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from models.config import TrainingConfig
from worker.data.prepared import Data
from worker.evaluation import report
from worker.evaluation.features import BATCH, Features, choose_features
from worker.evaluation.reference import Reference, make_reference
from worker.evaluation.report import Samples
from worker.evaluation.samples import Draw


class Evaluator:
    """Measures samples against a prepared data set, whose folder may hold a classifier; `inception_weights` is Inception's file.

    Nothing is read or computed before the first evaluation; what it finds out about the real images is kept. `between` is called
    between two batches of real images, and what it raises ends the evaluation.
    """

    def __init__(
        self,
        data: Data,
        config: TrainingConfig,
        device: torch.device,
        inception_weights: Path | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.data, self.device = data, device
        self.settings = config.evaluation
        self.inception_weights = inception_weights
        self._between = between

    @cached_property
    def features(self) -> Features:
        """Raises ConfigError when those that were asked for cannot be had."""
        return choose_features(self.settings.features, self.data.folder, self.device, self.inception_weights)

    def check_features(self) -> None:
        """Raises ConfigError when the features that were asked for cannot be had."""
        assert self.features

    @cached_property
    def _reference(self) -> Reference:
        return make_reference(self.data, self.features, self.settings.samples, self.device, self._between)

    @torch.inference_mode()
    def evaluate(self, draw: Draw) -> dict[str, Any]:
        """The report, as JSON; docs/metrics.md says what its numbers mean. The same samples give the same report but for `seconds`.

        Takes as many samples from `draw` as the config says, in batches of bounded size. Raises ConfigError (see `features`), and
        ValueError where evaluation is turned off.
        """
        if not self.settings.samples:
            raise ValueError("evaluation is turned off: it has no samples")
        start = time.perf_counter()
        notes = self._notes()
        samples, reference = self._draw(draw), self._reference
        accuracy = {} if self.features.accuracy is None else {"accuracy": self.features.accuracy}
        return {
            "samples": len(samples.features),
            "reference": len(reference.compared),
            "features": {"name": self.features.name, "dim": self.features.dim, **accuracy},
            **report.distribution(samples, reference, notes),
            **report.neighbourhoods(samples, reference, notes),
            **report.classes(samples, self.data.labels, notes),
            **report.memory(samples, reference, notes),
            **report.spread(samples, reference, notes),
            "notes": notes,
            "seconds": time.perf_counter() - start,
        }

    def _draw(self, draw: Draw) -> Samples:
        features, asked = [], []
        for first in range(0, self.settings.samples, BATCH):
            images, classes = draw(first, min(BATCH, self.settings.samples - first))
            features.append(self.features(images))
            if classes is not None:
                asked.append(torch.from_numpy(classes).to(self.device))
        together = torch.cat(features)
        judged = None if self.features.classify is None else self.features.classify(together)
        return Samples(together, torch.cat(asked) if asked else None, judged)

    def _notes(self) -> list[str]:
        """What is said of the real images themselves."""
        reference, examples = self._reference, self.data.spec.examples
        notes = []
        if len(reference.rows) < examples:
            notes.append(
                f"{len(reference.rows):,} of {examples:,} real images, drawn at random, stand for all: a copy of another is not seen."
            )
        if reference.is_small and reference.kid_floor is not None:
            notes.append(
                "The data is smaller than twice the samples: they are compared with all of it, and the floor is one half of it"
                f" ({reference.held:,}) against the other ({len(reference.rows) - reference.held:,}), with a wider interval."
            )
        return notes
