"""What a training run is told: one typed, validated, frozen object. Torch-free.

A user's partial config is merged over a preset (`models.presets`); the result is a `TrainingConfig`, stored with the job and
inside every checkpoint and model file. Lengths of time are counted in training examples, so that nothing depends on the batch
size or on the speed of the machine.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

from models.schedules import ScheduledBeta, ScheduledGamma, ScheduledRate, ScheduledShare

MAX_SEED = 2**63 - 1
DRAWN_BELOW = 2**53  # seeds that nobody gave: any JSON reader keeps these exact
MAX_EXAMPLES = 10**12

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class ConfigError(ValueError):
    """A config that cannot be trained. `errors` holds (pointer relative to the config such as "/network/width", detail)."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in errors))
        self.errors = errors

    def __reduce__(self) -> tuple[type[Self], tuple[list[tuple[str, str]]]]:
        return type(self), (self.errors,)  # pickled to other ranks of a run


class Section(BaseModel):
    """A part of the config: unknown keys and values of another type are errors, nothing changes, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class DataSpec(Section):
    """The shape of a prepared data set, which a config must fit.

    `classes` are the names in label order and empty when the data is unlabelled; examples are uint8, height x width x channels.
    """

    examples: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(ge=1)
    classes: tuple[str, ...] = Field((), strict=False)
    unlabelled: int = Field(0, ge=0, description="Examples without a label among labelled ones.")


class NetworkOptions(Section):
    """What every family takes. A family's `spec.py` derives its own options from this and may add fields or defaults."""

    family: str
    z_dim: int = Field(64, ge=1, le=4096, description="Length of the latent vector z.")
    conditional: bool = Field(True, description="Condition on the class labels; needs a labelled data set.")
    class_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the examples whose class is hidden while training, as that of an unlabelled one always is.",
    )
    components: int = Field(
        1,
        ge=1,
        le=1_000,
        description=(
            "Kinds of images to find in each class, or in data without classes, for the networks to be conditioned on."
            " A sample's comes with its seed."
        ),
    )

    @model_validator(mode="after")
    def _z_tells_components(self) -> Self:
        if self.components > 1 and self.z_dim < 2:
            raise ValueError("the components of a class are told apart by two values of z: use a z_dim of 2 or more")
        return self

    def class_rows(self, data: DataSpec) -> int:
        """How many rows a table of classes has: one for each component of each class, and a last one for a hidden class where
        there may be any. Data without classes count as one; 0 when it has no components either.
        """
        if self.conditional:
            return len(data.classes) * self.components + (self.class_dropout > 0)
        return self.components if self.components > 1 else 0


class Penalties(Section):
    """Gradient penalties on the discriminator: R1 and R2 (arXiv:1801.04406, eq. 9) and WGAN-GP's (arXiv:1704.00028, eq. 3)."""

    r1_gamma: ScheduledGamma = Field(0.0, description="Weight of R1, (gamma/2) E|grad D(real)|^2; 0 turns it off.")
    r2_gamma: ScheduledGamma = Field(0.0, description="Weight of R2, the same at the generator's samples.")
    gp_weight: float = Field(
        0.0, ge=0, le=1e6, description="Weight of E(|grad D| - 1)^2 between real and generated images."
    )
    every: int = Field(
        16,
        ge=1,
        le=1024,
        description="Lazily: every so many steps, with so many times the weight (arXiv:1912.04958, appendix B).",
    )
    method: Literal["exact", "estimate"] = Field(
        "exact",
        description="estimate takes |grad D|^2 of R1 and R2 from D at a point nearby, without a second derivative.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_called(cls, given: Any) -> Any:
        """`every` was `r1_every` when there was only R1."""
        if not isinstance(given, dict) or "r1_every" not in given:
            return given
        if "every" in given:
            raise ValueError("r1_every is an older name of every: give one of them")
        return {name: value for name, value in given.items() if name != "r1_every"} | {"every": given["r1_every"]}


class Augment(Section):
    """What is done to every image that the discriminator sees, so that it cannot learn few images by heart.

    `diffaugment`: arXiv:2006.10738. `ada`: arXiv:2006.06676, whose probability rises while the discriminator tells real from
    generated more often than `target` allows, and falls when it does not.
    """

    kind: Literal["none", "diffaugment", "ada"] = "none"
    policy: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        ("color", "translation", "cutout"),
        strict=False,
        min_length=1,
        max_length=3,
        description="The parts of diffaugment, in their order.",
    )
    flip: bool | None = Field(
        False,
        description="Mirror half of the examples; right where left and right mean the same. null: where they seem to, unless kind is none.",
    )
    probability: ScheduledShare | None = Field(
        None, description="Of each transform, 0 to 1. null: 1 for diffaugment; for ada, what its controller finds."
    )
    target: float = Field(0.6, ge=0, le=1, description="Of ada: the mean sign of the discriminator that it keeps to.")
    speed: int = Field(500_000, ge=1, le=MAX_EXAMPLES, description="Of ada: examples in which p may go from 0 to 1.")
    most: float = Field(0.8, ge=0, le=1, description="Of ada: p goes no higher, or transforms leak into the samples.")


class Optimizer(Section):
    """Adam (arXiv:1412.6980), one for each network."""

    generator_lr: ScheduledRate = 2e-4
    discriminator_lr: ScheduledRate = 2e-4
    beta1: float = Field(0.5, ge=0, lt=1)
    beta2: ScheduledBeta = 0.999


class Ema(Section):
    """Exponential moving average of G's weights. The half-life warms up as min(half_life, ramp * examples_seen)."""

    half_life: int = Field(9_000, ge=0, le=MAX_EXAMPLES, description="In examples; 0 keeps no average.")
    ramp: float = Field(0.05, gt=0, le=1)


class Budget(Section):
    """How long to train: exactly one of the three. It is rounded up to whole batches."""

    examples: int | None = Field(None, ge=1, le=MAX_EXAMPLES)
    epochs: float | None = Field(None, gt=0, le=1_000_000)
    seconds: float | None = Field(None, gt=0, le=10_000_000)

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if sum(value is not None for value in (self.examples, self.epochs, self.seconds)) != 1:
            raise ValueError("give exactly one of examples, epochs and seconds")
        return self

    def total(self, examples: int) -> int | None:
        """How many examples it comes to on a data set of so many; None for one in seconds."""
        return math.ceil(self.epochs * examples) if self.epochs is not None else self.examples


class Schedule(Section):
    """When things happen, in examples seen; null derives it from the total. Each is rounded up to whole batches.

    A run makes at most 10,000 ticks and 1,000 grids, checkpoints and evaluations, and of large generators fewer checkpoints (of 10
    GiB together, but ten there may be); an interval that would give more is stretched.
    """

    tick: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Metrics.")
    grid: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Fixed-seed picture of progress.")
    checkpoint: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Resumable state and a snapshot.")
    evaluation: int | None = Field(
        None,
        ge=1,
        le=MAX_EXAMPLES,
        description="KID and the like, and a checkpoint with them; null: with a checkpoint, as often as takes a twentieth of the time.",
    )


class Evaluation(Section):
    """How samples are compared with the data while training."""

    samples: int = Field(2_048, ge=0, le=50_000, description="Drawn for each evaluation; 0 turns it off.")
    features: Literal["auto", "inception", "classifier", "random"] = Field(
        "auto",
        description="The network whose features are compared; auto takes the first of these that is at hand.",
    )


class Stopping(Section):
    """What ends a run before its budget."""

    on_plateau: bool = Field(False, description="End when KID is within its floor, or no longer gets better.")
    patience: int = Field(8, ge=1, le=1_000, description="Evaluations without a better KID that make a plateau.")
    kid: float | None = Field(None, gt=0, description="End when KID is this low.")


class TrainingConfig(Section):
    """Everything that a run depends on besides its data."""

    network: SerializeAsAny[NetworkOptions]
    loss: str
    penalties: Penalties = Penalties()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    batch_size: int = Field(64, ge=1, le=65_536)
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Examples at a time: gradients add up to those of the batch. null: all at once.",
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads, shared by its processes; null takes what the machine can spare."
    )
    processes: int = Field(1, ge=1, le=64, description="That share each batch, one for each GPU of a machine.")
    budget: Budget
    schedule: Schedule = Schedule()
    evaluation: Evaluation = Evaluation()
    stopping: Stopping = Stopping()
    seed: Seed = 0

    @field_validator("network", mode="before")
    @classmethod
    def _network_of_its_family(cls, value: Any) -> Any:
        from models.catalog import parse_network  # the catalog's specs derive from this module

        return parse_network(value)

    @field_validator("loss")
    @classmethod
    def _loss_exists(cls, value: str) -> str:
        from models.catalog import LOSSES

        if value not in LOSSES:
            raise ValueError(f"unknown loss {value!r}; there are {', '.join(LOSSES)}")
        return value
