"""What a report says of samples, part by part. A number that cannot be had is None, and a note says why."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from worker.evaluation import memorisation as copies
from worker.evaluation import metrics
from worker.evaluation.distances import squared_distances
from worker.evaluation.reference import MOST_NEIGHBOURS, Reference

Part = dict[str, Any]

NEIGHBOURS_RECALL, NEIGHBOURS_COVERAGE = 3, 5  # as in the papers
SHOWN = 8  # samples whose nearest training image is named
DUE = 0.1  # a class counts as covered from this part of its share in the data on: one misjudged sample covers none


@dataclass(frozen=True)
class Samples:
    """Features [n, d] of samples, and int64 [n] the classes they were asked for and those they are judged to be, if any."""

    features: Tensor
    asked: Tensor | None
    judged: Tensor | None


def distribution(samples: Samples, reference: Reference, notes: list[str]) -> Part:
    """KID and FID, and what real images score in place of samples."""
    fake, real = samples.features, reference.compared
    part: Part = dict.fromkeys(("kid", "kid_low", "kid_high", "kid_floor", "kid_floor_high", "fid", "fid_floor"))
    if min(len(fake), len(real)) < 2:
        notes.append("KID and FID take two samples and two real images.")
        return part
    part["kid"], part["kid_low"], part["kid_high"] = metrics.kid(fake, real, reference.kernel)
    floor = reference.kid_floor
    if floor is None:
        notes.append("The floor of KID takes four real images.")
    else:
        part["kid_floor"], part["kid_floor_high"] = floor.value, floor.high
    least = f"{metrics.LEAST_FOR_FID:,}"
    if min(len(fake), len(real)) < metrics.LEAST_FOR_FID:
        notes.append(
            f"FID takes {least} on either side; there are {len(fake):,} samples and {len(real):,} real images."
        )
        return part
    part["fid"], part["fid_floor"] = metrics.frechet_distance(fake, real), reference.fid_floor
    if part["fid_floor"] is None:
        notes.append(f"The floor of FID takes {least} real images on either side.")
    return part


def neighbourhoods(samples: Samples, reference: Reference, notes: list[str]) -> Part:
    """Precision, recall, density, coverage and duplicates, among as many samples as real images."""
    part: Part = dict.fromkeys(("precision", "recall", "density", "coverage", "duplicates"))
    real = reference.near
    fake = samples.features[: len(real)]
    if len(real) <= NEIGHBOURS_COVERAGE:
        notes.append(
            f"Precision, recall, density, coverage and duplicates take more than {NEIGHBOURS_COVERAGE} samples and real images."
        )
        return part
    fake_fake, real_real = squared_distances(fake, fake), reference.near_distances
    real_fake = squared_distances(real, fake)
    recall = metrics.precision_recall(fake_fake, real_real, real_fake, NEIGHBOURS_RECALL)
    coverage = metrics.density_coverage(real_real, real_fake, NEIGHBOURS_COVERAGE)
    part["precision"], part["recall"] = recall
    part["density"], part["coverage"] = coverage
    if reference.calibration is not None:
        part["duplicates"] = copies.duplicates(fake_fake, real_real, reference.calibration)
    if part["duplicates"] is None:
        notes.append("Duplicates tell nothing: the real images repeat themselves.")
    return part


def spread(samples: Samples, reference: Reference, notes: list[str]) -> Part:
    """How far samples lie from each other; within their classes, where they were asked for and the images of a class differ."""
    fake, real = samples.features, reference.features
    found = None
    if min(len(fake), len(real)) > 1:
        if samples.asked is None:
            found = copies.spread(fake, real)
        else:
            found = copies.spread_by_class(fake, samples.asked, real, reference.labels)
            if found is None:  # of no class there are two images that differ
                found = copies.spread(fake, real)
    if found is None:
        notes.append("Spread takes two samples and two real images that differ.")
    return {"spread": found}


def memory(samples: Samples, reference: Reference, notes: list[str]) -> Part:
    """How near samples are to training images, and which ones are nearest to the first samples."""
    part: Part = dict.fromkeys(("memorisation", "memorisation_low", "memorisation_high", "memorisation_ratio"))
    calibration = reference.calibration
    if calibration is None:
        notes.append("Memorisation tells nothing: all real images are the same.")
        return part | {"nearest": []}
    found = copies.memorisation(samples.features[:MOST_NEIGHBOURS], reference.seen, calibration)
    if len(calibration.others) < copies.FEWEST:
        notes.append(
            f"Memorisation takes {copies.FEWEST} real images that differ; there are {len(calibration.others)}."
        )
    else:
        part["memorisation"], part["memorisation_low"], part["memorisation_high"] = found.share
        part["memorisation_ratio"] = found.ratio
    shown = zip(found.which[:SHOWN].tolist(), found.distance[:SHOWN].tolist(), strict=True)
    typical = float(calibration.others.median())
    part["nearest"] = [
        {"sample": number, "example": int(reference.rows[which % len(reference.rows)]), "distance": distance / typical}
        for number, (which, distance) in enumerate(shown)
    ]
    return part


def classes(samples: Samples, labels: npt.NDArray[np.int64], notes: list[str]) -> Part:
    """How many of the data's classes appear among the samples, and how often they are what was asked for. `labels` are all of the data's."""
    part: Part = {"class_coverage": None, "class_accuracy": None}
    known = labels[labels >= 0]
    if samples.judged is None or not len(known):
        notes.append("Class coverage and class accuracy take a classifier of the data's classes as features.")
        return part
    judged = samples.judged.cpu().numpy()
    counts = np.bincount(known)
    found = np.bincount(judged, minlength=len(counts))[: len(counts)]
    due = np.maximum(1, DUE * len(judged) * counts / len(known))
    part["class_coverage"] = float((found >= due)[counts > 0].mean())
    if samples.asked is None:
        notes.append("Class accuracy is of models that can be asked for a class.")
    else:
        part["class_accuracy"] = float((judged == samples.asked.cpu().numpy()).mean())
    return part
