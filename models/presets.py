"""Presets as data: a partial config and a range for the length of training."""

import math
from dataclasses import dataclass, field
from typing import Any

from models.catalog import check, parse_config
from models.config import ConfigError, DataSpec, TrainingConfig

FEW = 5_000  # examples; with fewer, a preset's `few` counts


@dataclass(frozen=True)
class Length:
    """How long to train when nobody says: so many epochs, kept between two numbers of examples."""

    epochs: float
    least_examples: int
    most_examples: int

    def of(self, data: DataSpec) -> int:
        """In examples."""
        return min(max(math.ceil(self.epochs * data.examples), self.least_examples), self.most_examples)


@dataclass(frozen=True)
class Preset:
    """A named starting point. `config` is a partial `TrainingConfig` document, whose r1_gamma is meant for 32 x 32 images.

    `few` stands over it for data sets of fewer than FEW examples.
    """

    name: str
    summary: str
    config: dict[str, Any]
    length: Length
    few: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="fast",
            summary="A small convolutional GAN that shows recognisable images after about a minute on a CPU.",
            config={
                "network": {"family": "dcgan", "z_dim": 64, "width": 32},
                "loss": "non_saturating",
                "penalties": {"r1_gamma": 1.0, "r1_every": 16},
                "optimizer": {"generator_lr": 1e-3, "discriminator_lr": 1e-3, "beta1": 0.5, "beta2": 0.999},
                "ema": {"half_life": 9_000},  # at a batch of 64 a decay of 0.995 a step
                "batch_size": 64,
            },
            length=Length(epochs=10, least_examples=140_000, most_examples=1_000_000),
            # Half the width takes half the time, and seeing few examples twice as often is worth more than the width.
            few={"network": {"z_dim": 16, "width": 16}, "ema": {"half_life": 20_000, "ramp": 0.1}},
        ),
        Preset(
            name="vanilla",
            summary=(
                "Fully connected networks, the minimax game and Adam at 2e-4, as GANs began: to compare with."
                " Its discriminator usually wins early, and the samples stay noise."
            ),
            config={
                "network": {"family": "mlp", "z_dim": 100},
                "loss": "minimax",
                "optimizer": {"generator_lr": 2e-4, "discriminator_lr": 2e-4, "beta1": 0.5, "beta2": 0.999},
                "ema": {"half_life": 0},
                "batch_size": 64,
            },
            length=Length(epochs=100, least_examples=100_000, most_examples=5_000_000),
        ),
    )
}


DEFAULT_PRESET = "fast"  # for somebody who names none


def resolve(
    preset: str,
    overrides: dict[str, Any],
    data: DataSpec,
    *,
    budget: dict[str, Any] | None = None,
    seed: int | None = None,
) -> TrainingConfig:
    """The whole config: `overrides` over the preset, and what remains open fitted to the data.

    Raises ConfigError: for values that are wrong in themselves and for those that this data cannot be trained with.
    """
    if preset not in PRESETS:
        raise ConfigError([("/preset", f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")])
    for name, beside in (("budget", budget), ("seed", seed)):
        if beside is not None and name in overrides:
            raise ConfigError([(f"/{name}", "given twice: beside the config and in it")])
    document = _merge(_base(PRESETS[preset], overrides, data), overrides)
    if budget is not None:
        document["budget"] = budget
    if seed is not None:
        document["seed"] = seed
    config = parse_config(document)
    check(config, data)
    return config


def _base(preset: Preset, overrides: dict[str, Any], data: DataSpec) -> dict[str, Any]:
    """The preset fitted to the data: its size, length, batch, labels and penalty."""
    base = _merge(preset.config, preset.few if data.examples < FEW else {})
    network = overrides.get("network")
    if isinstance(network, dict) and network.get("family", base["network"]["family"]) != base["network"]["family"]:
        base["network"] = {}  # another family has other options
    base["network"] = {**base["network"], "conditional": len(data.classes) > 1}
    base["batch_size"] = min(base["batch_size"], data.examples)
    if "penalties" in base:  # R1 sums over pixels, so its weight grows with their number (arXiv:2006.06676, appendix C)
        scale = data.height * data.width / 1024
        base["penalties"] = {**base["penalties"], "r1_gamma": base["penalties"]["r1_gamma"] * scale}
    if "budget" not in overrides:
        base["budget"] = {"examples": preset.length.of(data)}
    return base


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins; objects are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
