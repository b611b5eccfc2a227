"""Everything that can be set from outside, as `GANVIL_*` environment variables. Nothing else reads the environment."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from models.machine import available_cores

MIB = 2**20
GIB = 2**30
FEW_CORES = 4


class Settings(BaseSettings):
    """One object, made once per process by `get_settings` or handed in by a test. Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="GANVIL_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("ganvil-data"), description="Where everything lives that has no URL of its own.")
    database_url: str = Field(
        default_factory=lambda data: _sqlite_url(data["data_dir"].resolve() / "ganvil.db"),
        description="SQLite or PostgreSQL, as an SQLAlchemy URL.",
    )
    redis_url: str | None = Field(
        None, description="Carries the doorbells. Without it the API runs and nothing is rung."
    )
    storage_url: str = Field(
        default_factory=lambda data: (data["data_dir"].resolve() / "objects").as_uri(),
        description="file:// or s3://bucket/prefix.",
    )
    cache_dir: Path = Field(
        default_factory=lambda data: data["data_dir"] / "cache", description="Local copies of remote objects."
    )

    host: str = Field("127.0.0.1", description="The address to listen on; anything but loopback needs api_keys.")
    port: int = Field(8000, ge=0, le=65_535, description="The port to listen on; 0 takes a free one.")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Bearer keys, long and random, separated by commas."
    )
    signing_secret: str | None = Field(
        None, min_length=16, description="Signs addresses together with the caller's key; a new one ends them all."
    )

    upload_limit_bytes: int = Field(2 * GIB, ge=1, description="The largest dataset upload.")
    body_limit_bytes: int = Field(MIB, ge=1, description="The largest body of any other request.")
    upload_idle_seconds: float = Field(60, gt=0, description="How long a request may keep silent amid its body.")
    sync_generation_limit: int = Field(1024, ge=1, description="The most samples that one request may ask for.")

    batch_limit: int = Field(1_000_000, ge=1, description="The most samples of one batch.")
    batch_seconds: float = Field(
        604_800, gt=0, description="How long a batch is kept after it ended; then its files are deleted."
    )

    archive_members_limit: int = Field(2_000_000, ge=1, description="The most members of an uploaded archive.")
    archive_total_limit_bytes: int = Field(64 * GIB, ge=1, description="The most that an archive may unpack to.")
    archive_member_limit_bytes: int = Field(256 * MIB, ge=1, description="The most that one member may unpack to.")
    archive_ratio_limit: int = Field(
        200, ge=1, description="How many times its size an archive may unpack to, once that is more than 64 MiB."
    )
    archive_prepared_bytes_limit: int = Field(
        16 * GIB,
        ge=1,
        description="The most bytes that prepared examples may take: images x height x width x channels.",
    )
    image_pixels_limit: int = Field(100_000_000, ge=1, description="The most pixels of one image.")

    train_slots: int = Field(1, ge=1, le=64, description="How many jobs one worker trains at once.")
    trainer_threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of a job that does not ask for a number."
    )
    inception_weights: Path | None = Field(
        None, description="File of the Inception weights that torch-fidelity downloads, for samples to be compared by."
    )
    max_attempts: int = Field(3, ge=1, le=100, description="Runs that may be lost without progress before a job fails.")

    time_slice_seconds: float = Field(
        900, gt=0, description="How long a job trains before it lets an equal one have its turn."
    )
    lease_seconds: float = Field(
        30, gt=0, description="How long a worker holds a job after it last said that it lives."
    )
    renew_seconds: float = Field(
        10, gt=0, validate_default=True, description="How often a worker says that it lives: twice in a lease at least."
    )
    sweep_seconds: float = Field(5, gt=0, description="How often lost work is looked for.")
    ring_seconds: float = Field(30, gt=0, description="How often the bell is rung again for work that nobody took.")
    stop_grace_seconds: float = Field(
        60, gt=0, description="How long a trainer may take to checkpoint when told to stop."
    )

    follow_seconds: float = Field(1, gt=0, description="How often event streams look for news when Redis tells none.")
    ping_seconds: float = Field(15, gt=0, description="How often a silent event stream shows that it lives.")
    idempotency_seconds: float = Field(86_400, gt=0, description="How long the answer to an Idempotency-Key is kept.")
    orphan_seconds: float = Field(
        86_400, ge=3600, description="How long an object that no row names is kept: longer than any upload takes."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="The least that is logged.")

    sampler_threads: int = Field(1, ge=1, le=1024, description="CPU threads of the generator that serves samples.")
    sampler_memory_bytes: int = Field(2 * GIB, ge=1, description="How much of loaded generators is kept.")
    sampler_queue_images: int = Field(4096, ge=1, description="Samples that may wait before requests are turned away.")
    sampler_queue_bytes: int = Field(
        512 * MIB,
        ge=1,
        description="Bytes of their pixels, enlarged as asked for, that may wait or be unsent before large answers are turned away.",
    )
    sampler_wait_seconds: float = Field(
        30,
        gt=0,
        description="The longest wait for its turn that a request is let in to, unless it says its own deadline.",
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return tuple(key.strip() for key in value.split(",") if key.strip()) if isinstance(value, str) else value

    @field_validator("redis_url", "signing_secret", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @field_validator("renew_seconds")
    @classmethod
    def _leave_time_to_renew(cls, value: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_seconds")  # absent when it is refused itself
        if lease is not None and value > lease / 2:
            raise ValueError(f"a lease of {lease:g} s has to be renewed every {lease / 2:g} s or more often")
        return value

    def default_trainer_threads(self) -> int | None:
        """CPU threads on this machine for a job that names no number; None leaves it to the trainer.

        Threads fight over few cores (two trainers of two threads on two cores run tens of times slower than one), so there each
        slot gets its share, and one core is left to the API.
        """
        if self.trainer_threads is not None:
            return self.trainer_threads
        cores = available_cores()
        if cores > FEW_CORES and self.train_slots == 1:
            return None
        spare = 1 if cores <= FEW_CORES else 0
        return max(1, (cores - spare) // self.train_slots)


def explain(error: ValidationError) -> str:
    """Which settings cannot be used and why; without their values, which may be keys."""
    faults = [f"GANVIL_{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
    return "\n  ".join(["These settings cannot be used:", *faults])


def unknown_variables() -> list[str]:
    """GANVIL_ variables of the environment that are no setting, most likely misspelt ones."""
    known = {f"GANVIL_{name.upper()}" for name in Settings.model_fields} | {"GANVIL_URL", "GANVIL_API_KEY"}
    return sorted(name for name in os.environ if name.startswith("GANVIL_") and name not in known)


def _sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read from its environment once."""
    return Settings()
