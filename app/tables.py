"""The rows. Times are seconds since the epoch (float, UTC, the database's clock); ids carry their kind as a prefix.

ORM classes live here and nowhere else, so that "models" always means networks.
"""

import secrets
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Document = dict[str, Any]

ENDED = frozenset({"succeeded", "failed", "cancelled"})  # statuses of a job that no worker has or waits for

_LIVE = text("deleted_at IS NULL")


def new_id(prefix: str) -> str:
    """A fresh random id such as `job_3f0a9c17e2b84d6f5a01c9d2` (96 random bits)."""
    return f"{prefix}_{secrets.token_hex(12)}"


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        Document: JSON,
        list[Document]: JSON,
        list[str]: JSON,
        int: BigInteger,
    }


class Leased:
    """Work that one worker at a time may hold: the columns that `app.leases` reads and writes.

    `fence` rises with every claim, and every later write of that run carries it. `attempt` counts the runs that were lost
    since the last progress. `desired` is what the user asked for: run, pause or cancel.
    """

    id: Mapped[str] = mapped_column(String(40), primary_key=True, sort_order=-1)
    status: Mapped[str] = mapped_column(String(16), default="queued")
    desired: Mapped[str] = mapped_column(String(8), default="run")
    priority: Mapped[int] = mapped_column(default=0)
    queued_at: Mapped[float]
    attempt: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    claimed_at: Mapped[float | None]
    lease_until: Mapped[float | None]
    rung_at: Mapped[float | None]
    worker: Mapped[str | None] = mapped_column(String(255))
    error: Mapped[Document | None]  # {"code", "message"}


class Dataset(Leased, Base):
    """An upload or import. `status` is queued, running, succeeded or failed; the API says preparing, ready or failed."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_runnable", "status", "priority", "queued_at"),
        # A deleted data set keeps its row for the jobs that learned from it, and gives its name back.
        Index("ix_datasets_name", "name", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
        Index("ix_datasets_created", "created_at", "id"),
    )

    name: Mapped[str] = mapped_column(String(100))
    source: Mapped[Document]  # {"kind": "upload", "key", "filename", "size"} or {"kind": "builtin", "name"}
    options: Mapped[Document]  # {"resolution": int | null, "fit": "crop" | "pad" | "stretch"}
    # Filled in when it is prepared:
    key: Mapped[str | None] = mapped_column(String(255))  # storage prefix of examples.npy, labels.npy, dataset.json
    sha256: Mapped[str | None] = mapped_column(String(64))  # of examples and labels
    examples: Mapped[int | None]
    height: Mapped[int | None]
    width: Mapped[int | None]
    channels: Mapped[int | None]
    classes: Mapped[list[Document] | None]  # [{"name", "count"}], in label order; empty when unlabelled
    report: Mapped[Document | None]  # {"skipped": [...], "duplicates", "sizes"}
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Job(Leased, Base):
    """A training job. `status` is one of queued, running, paused, succeeded, failed, cancelled."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_runnable", "status", "priority", "queued_at"),
        Index("ix_jobs_created", "created_at", "id"),
    )

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    model_name: Mapped[str] = mapped_column(String(100), index=True)
    preset: Mapped[str] = mapped_column(String(40))  # as it was asked for
    chosen_preset: Mapped[str | None] = mapped_column(String(40))  # what "auto" came to; null in jobs of old releases
    preset_reason: Mapped[str | None] = mapped_column(Text)  # of "auto"
    config: Mapped[Document]  # models.config.TrainingConfig, resolved
    initial: Mapped[Document | None]  # {"ref", "snapshot_key", "sha256"}: the model whose weights it begins with
    # {"examples_seen", "examples_total", "examples_per_second", "eta_seconds", "elapsed_seconds"}
    progress: Mapped[Document]
    metrics: Mapped[Document]  # the newest metrics event's data
    evaluation: Mapped[Document | None]  # the newest evaluation event's data
    verdict: Mapped[Document | None]
    fingerprint: Mapped[Document | None]  # the engine's, frozen by the first run that left a checkpoint
    # `user_metadata` because `metadata` is taken by SQLAlchemy; the API says metadata.
    user_metadata: Mapped[Document]
    last_seq: Mapped[int] = mapped_column(default=0)
    claimed_examples: Mapped[int] = mapped_column(default=0)  # of the checkpoint that this claim began with
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class Probe(Leased, Base):
    """A short measurement of what a planned job would need, for a dry run; `id` is the digest of what decides the outcome.

    `status` is queued, running, succeeded or failed.
    """

    __tablename__ = "probes"
    __table_args__ = (Index("ix_probes_runnable", "status", "priority", "queued_at"),)

    request: Mapped[Document]  # {"config": models.config.TrainingConfig, "data": models.config.DataSpec}
    result: Mapped[Document | None]  # see worker.probe
    finished_at: Mapped[float | None]


class Batch(Leased, Base):
    """Samples of many seeds, made into shards. `status` is one of queued, running, succeeded, failed, cancelled.

    What it is made from is copied into the row when it is accepted. Of one that is deleted, or that has expired, the row stays and
    its shards go.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_runnable", "status", "priority", "queued_at"),
        Index("ix_batches_created", "created_at", "id"),
        Index("ix_batches_expires", "expires_at", sqlite_where=_LIVE, postgresql_where=_LIVE),
    )

    model: Mapped[str] = mapped_column(String(160))  # the lasting name of a version or a checkpoint
    sha256: Mapped[str] = mapped_column(String(64))  # of its generator.safetensors
    snapshot_key: Mapped[str] = mapped_column(String(255))
    info: Mapped[Document]  # as in ModelVersion
    seeds: Mapped[str] = mapped_column(Text)  # ranges: 0-63,70
    options: Mapped[Document]  # {"class": index | null, "truncation", "format": str | null, "container", "shard_size"}
    total: Mapped[int]  # samples
    progress: Mapped[Document]  # {"done", "samples_per_second", "eta_seconds"}
    archive: Mapped[Document | None]  # once succeeded: {"size", "sha256", "directory": {"key", "size"} | null}
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class BatchShard(Base):
    """A file with the samples of the same number of seeds as its neighbours, the last one's excepted."""

    __tablename__ = "batch_shards"

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), index=True)
    samples: Mapped[int]
    size: Mapped[int]  # bytes
    body: Mapped[int]  # bytes that come before what ends the file: what the archive takes
    sha256: Mapped[str] = mapped_column(String(64))
    engine: Mapped[str] = mapped_column(String(64))  # digest of the fingerprint that it was made under
    encoder: Mapped[str | None] = mapped_column(String(120))


class Event(Base):
    """One line of a job's history; `seq` is monotone per job. Rows of ticks (`app.jobs.reports.TICKS`) are unique per (kind,
    examples_seen).
    """

    __tablename__ = "events"
    __table_args__ = (
        # A resumed stretch writes the same ticks again: the row is replaced, under a fresh seq.
        Index("ix_events_tick", "job_id", "kind", "examples_seen"),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(
        String(16)
    )  # status, metrics, grid, evaluation, checkpoint, warning, verdict, log
    examples_seen: Mapped[int | None]
    data: Mapped[Document]
    created_at: Mapped[float]


class Checkpoint(Base):
    """A snapshot that can be sampled (always) and training state that can be resumed (`state_key`, while it is kept)."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "examples_seen"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    examples_seen: Mapped[int]
    fence: Mapped[int]
    state_key: Mapped[str | None] = mapped_column(String(255))
    snapshot_key: Mapped[str] = mapped_column(String(255))  # prefix of generator.safetensors and model.json
    sha256: Mapped[str] = mapped_column(String(64))  # of generator.safetensors
    size: Mapped[int]  # bytes of generator.safetensors
    kid: Mapped[float | None]
    evaluation: Mapped[Document | None]  # the whole report that kid is from
    best: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]


class ModelVersion(Base):
    """A published snapshot. It outlives its job and its data set: what it needs is copied into the row."""

    __tablename__ = "model_versions"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    snapshot_key: Mapped[str] = mapped_column(String(255), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(String(40))
    checkpoint_id: Mapped[str | None] = mapped_column(String(40))
    examples_seen: Mapped[int]
    kid: Mapped[float | None]
    evaluation: Mapped[Document | None]
    info: Mapped[Document]  # {"family", "network", "height", "width", "channels", "classes", "dataset"}
    created_at: Mapped[float]
    # A deleted version keeps its row, so that its number is never given twice and its address answers 410.
    deleted_at: Mapped[float | None]


class ModelAlias(Base):
    """A movable name of a version: `name@alias`."""

    __tablename__ = "model_aliases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    alias: Mapped[str] = mapped_column(String(40), primary_key=True)
    version: Mapped[int]
    updated_at: Mapped[float]


class ModelPin(Base):
    """A reference whose generator stays loaded wherever samples are served."""

    __tablename__ = "model_pins"

    ref: Mapped[str] = mapped_column(String(160), primary_key=True)
    created_at: Mapped[float]


class IdempotencyKey(Base):
    """The first answer to a POST that carried an Idempotency-Key, written in the transaction of what it created."""

    __tablename__ = "idempotency_keys"

    scope: Mapped[str] = mapped_column(String(120), primary_key=True)  # caller and route
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # sha256 of the request
    status_code: Mapped[int]
    body: Mapped[Document]
    location: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[float]


class Worker(Base):
    """A worker process that said it lives; rows older than a few minutes are swept away."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    slots: Mapped[int]
    busy: Mapped[int]
    device: Mapped[str] = mapped_column(String(255))  # for people
    gpus: Mapped[int | None]
    cores: Mapped[int | None]  # which it may use
    started_at: Mapped[float]
    seen_at: Mapped[float]


class Chore(Base):
    """Work that one process at a time does for all, now and then."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    begun_at: Mapped[float]  # the last time
