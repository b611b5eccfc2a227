"""Published models on the wire."""

from collections.abc import Container
from typing import Any, Self

from pydantic import ConfigDict, Field

from app import registry, tables
from app.schemas.base import MAX_INTEGER, Body, Time, View
from app.schemas.datasets import Name
from app.schemas.evaluations import Evaluation

REF_PATTERN = r"^[A-Za-z0-9._:@-]{1,160}$"
REF_DESCRIPTION = (
    "`name` (its newest version), `name:3`, `name@alias`, a checkpoint's id, or a job's (its newest snapshot)."
)


class ModelVersion(View):
    """A published snapshot; it never changes."""

    model: str
    version: int
    ref: str = Field(description="Its lasting name, such as `digits:3`.")
    sha256: str = Field(description="Of generator.safetensors.")
    size: int = Field(description="Bytes of generator.safetensors.")
    job: str | None
    checkpoint: str | None
    examples_seen: int
    kid: float | None
    evaluation: Evaluation
    info: dict[str, Any] = Field(description="Family, network, shape, classes and data set.")
    loaded: bool = Field(description="Whether the process that answers has it in memory.")
    created_at: Time

    @classmethod
    def of(cls, row: tables.ModelVersion, loaded: Container[str] = ()) -> Self:
        """`loaded` has the SHA-256s of the weights that are in memory."""
        own = {
            "model": row.name,
            "ref": f"{row.name}:{row.version}",
            "job": row.job_id,
            "checkpoint": row.checkpoint_id,
            "loaded": row.sha256 in loaded,
        }
        same = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        return cls.model_validate(same | own)


class Model(View):
    """A name, its versions (newest first), its aliases and its pins."""

    name: str
    versions: list[ModelVersion]
    aliases: dict[str, int] = Field(description="Alias to version.")
    pins: list[str] = Field(description="References to it that are pinned, so that what they mean stays loaded.")

    @classmethod
    def of(cls, model: registry.Model, loaded: Container[str] = ()) -> Self:
        """See `ModelVersion.of`."""
        versions = [ModelVersion.of(row, loaded) for row in model.versions]
        return cls(name=model.name, versions=versions, aliases=model.aliases, pins=list(model.pins))


class Snapshot(View):
    """What a reference means now."""

    ref: str = Field(description="As it was asked for.")
    version: str = Field(description="Its lasting name: `digits:3` or a checkpoint's id.")
    pinned: bool = Field(description="Whether `ref` can never mean another snapshot.")
    loaded: bool = Field(description="Whether the process that answers has it in memory.")
    kept_loaded: bool = Field(description="Whether `ref` itself was pinned, so that what it means stays loaded.")
    sha256: str
    examples_seen: int
    kid: float | None
    evaluation: Evaluation
    info: dict[str, Any] = Field(description="Family, network, shape, classes and data set.")
    model: Model | None = Field(description="The published model that it is a version of.")

    @classmethod
    def of(
        cls,
        resolved: registry.Resolved,
        model: registry.Model | None,
        loaded: Container[str] = (),
        *,
        kept_loaded: bool = False,
    ) -> Self:
        """See `ModelVersion.of`."""
        own = {
            "version": resolved.label,
            "loaded": resolved.sha256 in loaded,
            "kept_loaded": kept_loaded,
            "model": model and Model.of(model, loaded),
        }
        same = {name: getattr(resolved, name) for name in cls.model_fields if name not in own}
        return cls.model_validate(same | own)


class Pin(View):
    """A reference whose generator stays loaded."""

    ref: str
    version: str = Field(description="What it means now: `digits:3` or a checkpoint's id.")
    bytes: int = Field(description="Of its weights in memory.")


class PublishRequest(Body):
    """Where to publish to."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "digits"}})

    model: Name | None = Field(None, description="By default the model of the job.")


class AliasRequest(Body):
    """Which version an alias points at."""

    model_config = ConfigDict(json_schema_extra={"example": {"version": 1}})

    version: int = Field(ge=1, le=MAX_INTEGER, description="The number of the version that it is to mean.")


class Alias(View):
    """A movable name of a version."""

    ref: str = Field(description="Such as `digits@prod`.")
    version: int
    updated_at: Time
