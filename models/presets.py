"""Presets as data: a partial config and a range for the length of training; and the choice among them."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from models.catalog import FAMILIES, check, parse_config
from models.config import ConfigError, DataSpec, TrainingConfig

FEW = 5_000  # examples; with fewer, a preset's `few` counts
VERY_FEW = 1_000  # examples; with fewer, a discriminator learns them by heart unless they are augmented
MANY_CORES = 16  # on which a CPU trains a large network in the time of a coffee
MANY_CLASSES = 10  # which tell a discriminator all that dividing them would
LEAST_OF_A_KIND = 500  # examples; a component of fewer says more of these than of the data
MOST_DIVIDED = 2**31  # bytes of examples, all of which are read to divide them
HIDDEN_CLASSES = 0.1  # of the examples, where some have no label of their own

AUTO = "auto"
DEFAULT_PRESET = AUTO  # for somebody who names none


@dataclass(frozen=True)
class Hardware:
    """What trains: the kind of device, and how many CPU cores there are beside it or instead of it."""

    device: Literal["cpu", "cuda"] = "cpu"
    cores: int = 1


UNKNOWN = Hardware()  # a CPU like any other


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
    """A named starting point. `config` is a partial `TrainingConfig` document, whose gammas of R1 and R2 are meant for 32 x 32
    images.

    `few` stands over it for data sets of fewer than FEW examples. On a GPU `cuda` takes the place of both, where there is one.
    `kinds` is how many components there are to be in all, where there are enough examples of each.
    """

    name: str
    summary: str
    config: dict[str, Any]
    length: Length
    few: dict[str, Any] = field(default_factory=dict)
    cuda: dict[str, Any] | None = None
    kinds: int = 1

    def on(self, hardware: Hardware, data: DataSpec) -> dict[str, Any]:
        """The partial config for this hardware and number of examples."""
        if hardware.device == "cuda" and self.cuda is not None:
            return self.cuda
        return _merge(self.config, self.few if data.examples < FEW else {})

    def components(self, data: DataSpec, hardware: Hardware, *, conditional: bool) -> int:
        """Of each class, or of all examples where classes do not count."""
        classes = len(data.classes) if conditional else 1
        many = data.examples >= FEW and data.examples * data.height * data.width * data.channels <= MOST_DIVIDED
        if not many or classes >= MANY_CLASSES or (hardware.device == "cuda" and self.cuda is not None):
            return 1
        return max(1, min(self.kinds // classes, data.examples // (classes * LEAST_OF_A_KIND)))


def _adam(lr: Any, beta1: float, beta2: float) -> dict[str, Any]:
    return {"generator_lr": lr, "discriminator_lr": lr, "beta1": beta1, "beta2": beta2}


# Late, and nearly to nothing: the rate that learns fastest is not the one that ends best.
FALLING = {"start": 1e-3, "end": 2e-5, "hold": 0.6}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="fast",
            summary="A small convolutional GAN that shows recognisable images after about a minute on a CPU.",
            config={
                "network": {"family": "dcgan", "z_dim": 64, "width": 32},
                "loss": "non_saturating",
                "penalties": {"r1_gamma": 1.0, "every": 4},
                "optimizer": _adam(FALLING, 0.0, 0.99),
                "ema": {"half_life": 20_000},
                "batch_size": 64,
            },
            length=Length(epochs=10, least_examples=140_000, most_examples=1_000_000),
            kinds=50,
            # Half the width takes half the time, and seeing few examples twice as often is worth more than the width.
            few={
                "network": {"z_dim": 16, "width": 16},
                "penalties": {"every": 16},
                "optimizer": _adam(1e-3, 0.5, 0.999),
                "ema": {"ramp": 0.1},
            },
        ),
        Preset(
            name="quality",
            summary=(
                "The best images that this machine can be taught in hours: R3GAN on a GPU, a wide convolutional GAN that is"
                " trained longer on a CPU."
            ),
            config={
                "network": {"family": "dcgan", "z_dim": 128, "width": 64, "max_width": 512},
                "loss": "non_saturating",
                "penalties": {"r1_gamma": 1.0, "every": 4},
                "optimizer": _adam(FALLING, 0.0, 0.99),
                "ema": {"half_life": 20_000},
                "batch_size": 64,
            },
            length=Length(epochs=50, least_examples=500_000, most_examples=5_000_000),
            few={"ema": {"half_life": 50_000, "ramp": 0.1}},
            kinds=50,
            cuda={
                "network": {"family": "r3gan"},
                "loss": "relativistic",
                "penalties": {"r1_gamma": 1.0, "r2_gamma": 1.0, "every": 1},
                "optimizer": _adam({"start": 2e-4, "end": 5e-5}, 0.0, 0.99),
                "ema": {"half_life": 500_000},
                "batch_size": 256,
            },
        ),
        Preset(
            name="few-shot",
            summary=(
                "For hundreds of images: once the discriminator begins to know them by heart, it sees each of them in more and"
                " more guises."
            ),
            config={
                "network": {"family": "dcgan", "z_dim": 64, "width": 32},
                "loss": "non_saturating",
                "penalties": {"r1_gamma": 1.0, "every": 16},
                # Adaptive: before the discriminator knows the images by heart, augmenting them only slows learning down.
                "augment": {"kind": "ada", "speed": 100_000, "flip": None},
                "optimizer": _adam(5e-4, 0.5, 0.999),
                "ema": {"half_life": 30_000, "ramp": 0.1},
                "batch_size": 32,
            },
            length=Length(epochs=800, least_examples=400_000, most_examples=1_000_000),
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
                "optimizer": _adam(2e-4, 0.5, 0.999),
                "ema": {"half_life": 0},
                "batch_size": 64,
            },
            length=Length(epochs=100, least_examples=100_000, most_examples=5_000_000),
        ),
    )
}


def choose_preset(data: DataSpec, hardware: Hardware) -> tuple[str, str]:
    """What `auto` comes to: the name of a preset, and a sentence that says why."""
    name, reason = _preferred(data, hardware)
    if _refusal(name, data, hardware) is None:
        return name, reason
    shape = f"{data.height} x {data.width} images of {data.channels} {'channel' if data.channels == 1 else 'channels'}"
    for other in PRESETS:
        if _refusal(other, data, hardware) is None:
            return other, f"The networks of {name} cannot make {shape}, and those of {other} can."
    return name, reason  # resolving it says what is in the way


def _preferred(data: DataSpec, hardware: Hardware) -> tuple[str, str]:
    labels = f"{len(data.classes)} classes" if len(data.classes) > 1 else "no classes"
    described = (
        f"{data.examples:,} image{'s' if data.examples > 1 else ''} of {data.height} x {data.width} with {labels}"
    )
    if data.examples < VERY_FEW:
        return "few-shot", f"{described}: so few are learned by heart unless each is seen in many guises."
    if hardware.device == "cuda":
        return "quality", f"{described}, and a GPU to train on: there is time for the best networks."
    if hardware.cores >= MANY_CORES:
        return "quality", f"{described}, and {hardware.cores} CPU cores: enough for large networks."
    return "fast", f"{described}, and no GPU: a small network that learns quickly."


def _refusal(name: str, data: DataSpec, hardware: Hardware) -> ConfigError | None:
    try:
        resolve(name, {}, data, hardware=hardware)
    except ConfigError as error:
        return error
    return None


def resolve(
    preset: str,
    overrides: dict[str, Any],
    data: DataSpec,
    *,
    budget: dict[str, Any] | None = None,
    seed: int | None = None,
    hardware: Hardware = UNKNOWN,
) -> TrainingConfig:
    """The whole config: `overrides` over the preset, and what remains open fitted to the data and the hardware.

    Raises ConfigError: for values that are wrong in themselves and for those that this data cannot be trained with.
    """
    if preset == AUTO:
        preset, _ = choose_preset(data, hardware)
    if preset not in PRESETS:
        raise ConfigError([("/preset", f"unknown preset {preset!r}; there are {AUTO}, {', '.join(PRESETS)}")])
    for name, beside in (("budget", budget), ("seed", seed)):
        if beside is not None and name in overrides:
            raise ConfigError([(f"/{name}", "given twice: beside the config and in it")])
    overrides = _with_present_names(overrides)
    document = _merge(_base(PRESETS[preset], overrides, data, hardware), overrides)
    if budget is not None:
        document["budget"] = budget
    if seed is not None:
        document["seed"] = seed
    config = parse_config(document)
    check(config, data)
    return config


def _base(preset: Preset, overrides: dict[str, Any], data: DataSpec, hardware: Hardware) -> dict[str, Any]:
    """The preset fitted to the data: its networks, size, length, batch and penalties."""
    base = preset.on(hardware, data)
    asked = overrides.get("network")
    asked = asked if isinstance(asked, dict) else {}
    family = asked.get("family", base["network"]["family"])
    plays = not (isinstance(family, str) and family in FAMILIES and FAMILIES[family].game == "variational")
    base = base | {
        "network": _network(base["network"], asked, data),
        "batch_size": min(base["batch_size"], data.examples),
    }
    if plays:
        conditional = asked.get("conditional", base["network"]["conditional"]) is True
        base["network"]["components"] = preset.components(data, hardware, conditional=conditional)
    else:  # without a discriminator it needs none of these
        base = {name: part for name, part in base.items() if name not in {"penalties", "augment"}}
    if "penalties" in base:
        base["penalties"] = _fitted(base["penalties"], data)
    if "budget" not in overrides:
        base["budget"] = {"examples": preset.length.of(data)}
    return base


def _network(base: dict[str, Any], asked: dict[str, Any], data: DataSpec) -> dict[str, Any]:
    """The preset's options for the family that is asked for: another one than its own has other options."""
    options = dict(base) if asked.get("family", base["family"]) == base["family"] else {}
    options["conditional"] = len(data.classes) > 1
    if data.unlabelled and asked.get("conditional", options["conditional"]):
        options["class_dropout"] = HIDDEN_CLASSES
    return options


def _fitted(penalties: dict[str, Any], data: DataSpec) -> dict[str, Any]:
    """R1 and R2 sum over pixels, so their weights grow with the number of these (arXiv:2006.06676, appendix C)."""
    scale = data.height * data.width / 1024
    gammas = {name: penalties[name] for name in ("r1_gamma", "r2_gamma") if name in penalties}
    return penalties | {name: _scaled(gamma, scale) for name, gamma in gammas.items()}


def _scaled(gamma: Any, scale: float) -> Any:
    if isinstance(gamma, dict):
        return gamma | {"start": gamma["start"] * scale, "end": gamma["end"] * scale}
    return gamma * scale


def _with_present_names(overrides: dict[str, Any]) -> dict[str, Any]:
    """A field that was renamed, under the name that the presets use: both at once would be one too many."""
    penalties = overrides.get("penalties")
    if not isinstance(penalties, dict) or "r1_every" not in penalties or "every" in penalties:
        return overrides
    present = {"every" if name == "r1_every" else name: value for name, value in penalties.items()}
    return overrides | {"penalties": present}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins; objects are merged key by key, but a whole ramp is one value."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        section = isinstance(value, dict) and not {"start", "end"} <= value.keys()
        merged[key] = _merge(below, value) if section and isinstance(below, dict) else value
    return merged
