"""Training jobs on the wire."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from app import tables
from app.jobs import estimates, plans
from app.schemas.base import Body, Failure, JsonObject, Metadata, Text, Time, View
from app.schemas.datasets import Name
from app.schemas.evaluations import Evaluation
from app.schemas.models import REF_PATTERN
from models import config
from models.config import Seed
from models.presets import DEFAULT_PRESET

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
EventKind = Literal["status", "metrics", "grid", "evaluation", "checkpoint", "warning", "verdict", "log"]
Priority = Annotated[
    int, Field(ge=plans.PRIORITIES[0], le=plans.PRIORITIES[-1], description="Higher goes first, and displaces lower.")
]

VERDICT = {
    "verdict": "collapsed",
    "message": "The samples have become alike: they differ from one another 4% as much as the real images do.",
    "figures": {"spread": 0.04, "duplicates": 0.93, "coverage": 0.02},
}


class Budget(config.Budget):
    """How long to train: exactly one of the three."""

    model_config = ConfigDict(strict=True)


class JobRequest(Body):
    """What to train. A data set is enough: everything else has a default, most of it in the preset."""

    model_config = ConfigDict(json_schema_extra={"example": {"dataset": "digits", "budget": {"epochs": 20}}})

    dataset: Annotated[Text, Field(max_length=100, description="Id or name.")]
    model: Name | None = Field(None, description="The model to publish to; by default named like the data set.")
    preset: Annotated[Text, Field(max_length=40)] | None = Field(
        None, description=f"One of GET /v1/presets; by default `{DEFAULT_PRESET}`."
    )
    config: JsonObject | None = Field(None, description="What to change in the preset: GET /v1/presets has the schema.")
    budget: Budget | None = Field(None, description="How long to train; by default what the preset says.")
    seed: Seed | None = Field(None, description="Of everything random; by default drawn.")
    initial: Annotated[Text, Field(pattern=REF_PATTERN)] | None = Field(
        None,
        description=(
            "A model to begin with instead of random weights: `name`, `name:3`, `name@alias`, a checkpoint's id or a job's. Its"
            " network's options become the job's, and its images must be of the data set's shape; classes may differ. It"
            " cannot be deleted before the job has ended."
        ),
        examples=["digits:3"],
    )
    priority: Priority = 0
    metadata: Metadata | None = Field(None, description="Names and texts of your own, kept with the job.")


class JobUpdate(Body):
    """What to change about a job; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"metadata": {"note": "first try"}}})

    priority: Priority | None = None
    budget: Budget | None = Field(None, description="Train longer or shorter; not for a job that has succeeded.")
    metadata: Metadata | None = Field(None, description="Names and texts of your own, kept with the job.")


class Progress(View):
    """How far a job is. Before it starts, nothing but the total may be known."""

    examples_seen: int = 0
    examples_total: int | None = Field(None, description="Null until a budget in seconds has been measured.")
    percent: float | None = None
    examples_per_second: float | None = None
    eta_seconds: float | None = None
    elapsed_seconds: float | None = None

    @classmethod
    def of(cls, progress: dict[str, Any]) -> Self:
        view = cls.model_validate(progress)
        if view.examples_total:
            view.percent = round(min(100.0, 100.0 * view.examples_seen / view.examples_total), 2)
        return view


class Job(View):
    """A training job."""

    id: str
    status: Status
    desired: Literal["run", "pause", "cancel"] = Field(
        description="What was asked for last, where it is still to come."
    )
    dataset: str = Field(description="The data set's id.")
    model: str = Field(description="The model that success publishes to.")
    preset: str = Field(description="As it was asked for.")
    chosen_preset: str | None = Field(description="What `auto` came to.", examples=["fast"])
    preset_reason: str | None = Field(
        description="Why `auto` came to that.",
        examples=["1,797 images of 8 x 8 with 10 classes, and no GPU: a small network that learns quickly."],
    )
    initial: str | None = Field(
        description="The model that it begins with, by its lasting name.", examples=["digits:3"]
    )
    priority: int
    queue_position: int | None = Field(description="1 is next; null unless it is queued.")
    attempt: int = Field(description="Runs that were lost since the last progress.")
    fence: int = Field(description="How often a worker has taken it up.")
    worker: str | None
    progress: Progress
    metrics: dict[str, Any] = Field(description="The newest ones.")
    evaluation: Evaluation = Field(description="The newest one.")
    verdict: dict[str, Any] | None = Field(
        description="The newest one: `healthy`, `diverged`, `collapsed` or `plateaued`, in a sentence, with the figures.",
        examples=[VERDICT],
    )
    error: Failure | None
    config: dict[str, Any] = Field(description="The whole configuration, as it was resolved.")
    fingerprint: dict[str, Any] | None = Field(description="The engine that results are exact for.")
    metadata: dict[str, str]
    created_at: Time
    queued_at: Time
    started_at: Time | None
    finished_at: Time | None

    @classmethod
    def of(cls, row: tables.Job, queue_position: int | None) -> Self:
        own = {
            "dataset": row.dataset_id,
            "model": row.model_name,
            "metadata": row.user_metadata,
            "initial": row.initial and row.initial["ref"],
            "progress": Progress.of(row.progress),
            "queue_position": queue_position,
        }
        same = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        return cls.model_validate(same | own)


class Parameters(View):
    """Numbers that are learned."""

    generator: int
    discriminator: int


class Measured(View):
    """Where and when a probe ran."""

    worker: str
    fingerprint: dict[str, Any] = Field(description="The engine that it ran under.")
    at: Time


class JobPlan(View):
    """What a submission would become. No job was stored. What nobody has measured is null, and `note` says why."""

    dataset: str = Field(description="The data set's id.")
    model: str
    preset: str = Field(description="As it was asked for.")
    chosen_preset: str = Field(description="What `auto` came to.", examples=["fast"])
    preset_reason: str | None = Field(description="Why `auto` came to that.")
    initial: str | None = Field(description="The model that it would begin with, by its lasting name.")
    config: dict[str, Any]
    examples_total: int | None = Field(description="What the budget comes to; null for one in seconds.")
    epochs: float | None = Field(description="The same in passes over the data set.")
    parameters: Parameters | None = Field(examples=[{"generator": 731_969, "discriminator": 662_401}])
    memory_bytes: int | None = Field(
        description="At the most, while training: of the GPU where there is one, else of the machine.",
        examples=[734_003_200],
    )
    examples_per_second: float | None = Field(description="Measured by a short probe.", examples=[1310.5])
    estimated_seconds: float | None = Field(
        description="Of training, by the measured speed, or else by that of the newest job like it; null when neither is known."
    )
    measured: Measured | None
    note: str | None = Field(description="What to know about these figures, or why there are none.")

    @classmethod
    def of(cls, plan: plans.Plan, estimate: estimates.Estimate) -> Self:
        total, size = plan.examples_total, plan.dataset.examples
        known = {name: value for name, value in vars(estimate).items() if name != "seconds"}
        return cls(
            dataset=plan.dataset.id,
            model=plan.model,
            preset=plan.preset,
            chosen_preset=plan.chosen_preset,
            preset_reason=plan.preset_reason,
            initial=plan.initial and plan.initial.model.label,
            config=plan.config,
            examples_total=total,
            epochs=round(total / size, 4) if total and size else None,
            estimated_seconds=None if estimate.seconds is None else round(estimate.seconds, 1),
            **known,
        )


class Event(View):
    """One line of a job's history. `seq` rises; metrics and grids that a resumed run repeats get a new one."""

    seq: int
    kind: EventKind
    examples_seen: int | None
    data: dict[str, Any]
    created_at: Time

    @classmethod
    def of(cls, row: tables.Event) -> Self:
        """A grid shows its URL; where it is stored is our own affair."""
        data = row.data
        if row.kind == "grid":
            shown = {name: value for name, value in data.items() if name != "key"}
            data = shown | {"url": grid_url(row.job_id, row.examples_seen)}
        same = {name: getattr(row, name) for name in cls.model_fields if name != "data"}
        return cls.model_validate(same | {"data": data})


class EventPage(View):
    """Events, oldest first."""

    data: list[Event]
    next_cursor: str | None = Field(description="Give it as `after` to go on; null when this is all for now.")


class Metrics(View):
    """Metrics and evaluations as columns of equal length; a value is null where it was not reported."""

    columns: dict[str, list[float | None]] = Field(
        examples=[{"examples_seen": [6400, 12800], "loss_g": [1.92, 1.71], "kid": [None, 0.0123]}]
    )


def grid_url(job_id: str, examples_seen: int | None) -> str:
    return f"/v1/jobs/{job_id}/grids/{examples_seen}.png"


class Grid(View):
    """A picture of progress: always the same seeds."""

    examples_seen: int
    url: str
    created_at: Time

    @classmethod
    def of(cls, job_id: str, row: tables.Event) -> Self:
        url = grid_url(job_id, row.examples_seen)
        return cls.model_validate({"examples_seen": row.examples_seen, "url": url, "created_at": row.created_at})


class Checkpoint(View):
    """A snapshot of a job's generator, and training state where that is kept."""

    id: str
    job: str
    examples_seen: int
    resumable: bool = Field(description="Whether training state remains: the newest and the best keep it.")
    best: bool
    kid: float | None
    evaluation: Evaluation
    sha256: str = Field(description="Of generator.safetensors.")
    size: int = Field(description="Bytes of generator.safetensors.")
    created_at: Time

    @classmethod
    def of(cls, row: tables.Checkpoint) -> Self:
        own = {"job": row.job_id, "resumable": row.state_key is not None}
        same = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        return cls.model_validate(same | own)
