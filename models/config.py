"""What a training run is told: one typed, validated, frozen object. Torch-free.

A user's partial config is merged over a preset (`models.presets`); the result is a `TrainingConfig`, stored with the job and
inside every checkpoint and model file. Lengths of time are counted in training examples, so that nothing depends on the batch
size or on the speed of the machine.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

MAX_SEED = 2**63 - 1
DRAWN_BELOW = 2**53  # seeds that nobody gave: any JSON reader keeps these exact
MAX_EXAMPLES = 10**12

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class ConfigError(ValueError):
    """A config that cannot be trained. `errors` holds (pointer relative to the config such as "/network/width", detail)."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in errors))
        self.errors = errors


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


class NetworkOptions(Section):
    """What every family takes. A family's `spec.py` derives its own options from this and may add fields or defaults."""

    family: str
    z_dim: int = Field(64, ge=1, le=4096, description="Length of the latent vector z.")
    conditional: bool = Field(True, description="Condition on the class labels; needs a labelled data set.")


class Penalties(Section):
    """Gradient penalties on the discriminator. R1: Mescheder et al. 2018 (arXiv:1801.04406), eq. 9."""

    r1_gamma: float = Field(0.0, ge=0, le=1e6, description="Weight of R1, (gamma/2) E|grad D(real)|^2; 0 turns it off.")
    r1_every: int = Field(16, ge=1, le=1024, description="Lazy R1: every so many steps, with so many times the weight.")


class Optimizer(Section):
    """Adam (arXiv:1412.6980), one for each network."""

    generator_lr: float = Field(2e-4, gt=0, le=10)
    discriminator_lr: float = Field(2e-4, gt=0, le=10)
    beta1: float = Field(0.5, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)


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

    A run makes at most 10,000 ticks, 1,000 grids and 1,000 checkpoints; an interval that would give more is stretched.
    """

    tick: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Metrics.")
    grid: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Fixed-seed picture of progress.")
    checkpoint: int | None = Field(None, ge=1, le=MAX_EXAMPLES, description="Resumable state and a snapshot.")


class TrainingConfig(Section):
    """Everything that a run depends on besides its data."""

    network: SerializeAsAny[NetworkOptions]
    loss: str
    penalties: Penalties = Penalties()
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    batch_size: int = Field(64, ge=1, le=65_536)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; null takes what the machine can spare.")
    budget: Budget
    schedule: Schedule = Schedule()
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
