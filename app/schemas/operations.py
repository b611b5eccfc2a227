"""Health, queue, workers, and what can be asked for."""

from typing import Any, Literal

from pydantic import Field

from app.schemas.base import Time, View


class Live(View):
    """The process answers."""

    status: Literal["live"] = "live"


class Readiness(View):
    """`ready`: everything answers. `degraded`: without Redis, jobs are taken in and wait until workers look for themselves."""

    status: Literal["ready", "degraded", "unready"]
    components: dict[str, Literal["up", "down", "off"]] = Field(description="database, storage, redis.")


class Worker(View):
    """A worker process that was heard of within the last minute."""

    id: str
    slots: int
    busy: int
    device: str = Field(examples=["1 GPU"])
    gpus: int | None
    cores: int | None = Field(description="CPU cores that it may use.")
    started_at: Time
    seen_at: Time


class Queue(View):
    """How much waits and runs."""

    jobs: dict[str, int] = Field(description="Jobs by status.")
    oldest_queued_at: Time | None = Field(description="Since when the longest waiting job has waited.")
    batches: dict[str, int] = Field(description="Batches by status, beside the jobs: they take none of the slots.")
    workers: int
    slots: int
    busy: int


class Preset(View):
    """A whole configuration by name."""

    name: str
    summary: str
    config: dict[str, Any]
    few: dict[str, Any] = Field(description="What changes where there are few examples.")
    cuda: dict[str, Any] | None = Field(description="What takes the place of `config` on a GPU.")


class Family(View):
    """A kind of network."""

    name: str
    summary: str
    game: Literal["adversarial", "variational"] = Field(description="What it learns by.")
    mixes_batch: bool = Field(description="Whether a batch has to be taken whole, as under batch normalisation.")
    options: dict[str, Any] = Field(description="JSON schema of `config.network`.")


class Presets(View):
    """What a job's `preset` and `config` can be."""

    data: list[Preset]
    default: str = Field(description="For who names none: `auto` picks one by the data and the hardware.")
    config_schema: dict[str, Any] = Field(
        description="JSON schema of a job's `config`, of which any part may be left out."
    )


class Families(View):
    """What `config.network.family` and `config.loss` can be."""

    data: list[Family]
    losses: dict[str, str] = Field(description="Name and summary.")
