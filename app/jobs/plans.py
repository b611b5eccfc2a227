"""From what a user asked for to the job that would be: the same for a dry run, a submission and a longer budget."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app import datasets, names
from app.errors import FieldError, Invalid
from app.jobs import initials
from app.jobs.initials import Initial
from app.tables import Dataset, Document, Job
from models import presets
from models.config import DRAWN_BELOW, ConfigError, DataSpec, TrainingConfig
from models.presets import UNKNOWN, Hardware

PRIORITIES = range(-1000, 1001)


@dataclass(frozen=True)
class Plan:
    """A job that could be submitted. `examples_total` is None for a budget in seconds.

    `preset` is the one that was asked for, `chosen_preset` what "auto" came to for `preset_reason`.
    """

    dataset: Dataset
    data: DataSpec
    model: str
    preset: str
    chosen_preset: str
    preset_reason: str | None
    config: Document
    initial: Initial | None
    examples_total: int | None


def plan(
    session: Session,
    *,
    dataset: str,
    model: str | None = None,
    preset: str | None = None,
    config: Document | None = None,
    budget: Document | None = None,
    seed: int | None = None,
    initial: str | None = None,
    hardware: Hardware = UNKNOWN,
) -> Plan:
    """Resolve a request into a whole config that fits the data set, given by id or name, and the model to begin with.

    Raises NotFound or Gone without such a data set or model, InvalidState while it is not ready, and Invalid with pointers to the
    fields.
    """
    source = datasets.ready(session, dataset)
    model = source.name if model is None else names.validate(model, "#/model")
    spec = datasets.spec(source)
    began_with = None if initial is None else initials.find(session, initial)
    overrides = initials.with_options(began_with, config or {}, spec)
    if seed is None and "seed" not in overrides:
        seed = secrets.randbelow(DRAWN_BELOW)
    preset = presets.DEFAULT_PRESET if preset is None else preset
    chosen, reason = presets.choose_preset(spec, hardware) if preset == presets.AUTO else (preset, None)
    resolved = _resolve(chosen, overrides, spec, budget=budget, seed=seed, hardware=hardware)
    _check_features(source, resolved)
    if began_with is not None:
        initials.check(began_with, resolved.network, spec)
    total = resolved.budget.total(spec.examples)
    return Plan(source, spec, model, preset, chosen, reason, resolved.model_dump(mode="json"), began_with, total)


def _check_features(source: Dataset, config: TrainingConfig) -> None:
    """Raises Invalid where samples are to be compared by a classifier that the data set does not have."""
    without = (source.report or {}).get("features")  # why
    if config.evaluation.features == "classifier" and config.evaluation.samples and without:
        detail = f"{source.name} has none: {without}; leave it out, or take random"
        raise Invalid(
            f"There are no such features. {detail}.", errors=[FieldError("#/config/evaluation/features", detail)]
        )


def extended(session: Session, job: Job, budget: Document) -> tuple[Document, int | None]:
    """The job's config with another budget, checked as a new one would be, and the examples that it comes to. Raises Invalid, also
    for one already used up.
    """
    data = datasets.spec(session.get_one(Dataset, job.dataset_id))
    overrides = {name: value for name, value in job.config.items() if name != "budget"}
    resolved = _resolve(job.chosen_preset or job.preset, overrides, data, budget=budget)
    total = resolved.budget.total(data.examples)
    _check_left("examples", total, job.progress.get("examples_seen"))
    _check_left("seconds", resolved.budget.seconds, job.progress.get("elapsed_seconds"))
    return resolved.model_dump(mode="json"), total


def _check_left(unit: str, budget: float | None, used: float | None) -> None:
    if budget is not None and used is not None and budget <= used:
        detail = f"the job has already had {used:.0f} {unit}; give it more"
        raise Invalid(f"The budget is used up: {detail}.", errors=[FieldError("#/budget", detail)])


def check_priority(priority: int) -> int:
    """The priority itself. Raises Invalid."""
    if priority in PRIORITIES:
        return priority
    detail = f"a priority is a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}; higher goes first"
    raise Invalid(f"{priority} is no priority: {detail}.", errors=[FieldError("#/priority", detail)])


def _resolve(
    preset: str,
    overrides: dict[str, Any],
    spec: DataSpec,
    *,
    hardware: Hardware = UNKNOWN,
    **beside: Any,
) -> TrainingConfig:
    if preset not in presets.PRESETS:
        detail = f"there is no preset {preset[:100]!r}; there are {presets.AUTO}, {', '.join(presets.PRESETS)}"
        raise Invalid(f"Unknown preset: {detail}.", errors=[FieldError("#/preset", detail)])
    try:
        return presets.resolve(preset, overrides, spec, hardware=hardware, **beside)
    except ConfigError as error:
        errors = [FieldError(_pointer(pointer, beside), detail) for pointer, detail in error.errors]
        first = f"{errors[0].pointer.removeprefix('#/')}: {errors[0].detail}"
        count = f" ({len(errors)} faults)" if len(errors) > 1 else ""
        raise Invalid(f"The job cannot be trained as asked{count}. {first}", errors=errors) from error


def _pointer(pointer: str, beside: dict[str, Any]) -> str:
    """Where in the request a part of the config came from: budget and seed also stand beside the config."""
    part = pointer.split("/")[1] if "/" in pointer else ""
    return f"#{pointer}" if beside.get(part) is not None else f"#/config{pointer}"
