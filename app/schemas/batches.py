"""Batches on the wire."""

from typing import Literal, Self

from pydantic import ConfigDict, Field

from app import batches, tables
from app.batches.containers import CONTAINERS, ContainerName
from app.sampling import ranges, sample_shape
from app.sampling.seeds import parse_ranges
from app.schemas.base import MAX_INTEGER, Body, Failure, Time, View
from app.schemas.generations import ClassName, FormatName, SeedsGiven
from app.schemas.models import REF_DESCRIPTION, REF_PATTERN

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
MEDIA_TYPES = sorted({media for entry in CONTAINERS.values() for media in (entry.media_type, entry.archive_media_type)})


class BatchRequest(Body):
    """Which samples, and what they come in."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "digits", "seeds": "0-999"}})

    model: str = Field(pattern=REF_PATTERN, description=REF_DESCRIPTION)
    seeds: SeedsGiven = Field(description="Text such as `0-49999` or `0-9,20,30-39`, or a list.")
    class_: ClassName | None = Field(
        None,
        alias="class",
        description="For all samples: a class by its name or, when none is called so, by its index. "
        "Without it a conditional model takes the class that each seed stands for.",
    )
    truncation: float = Field(
        1.0, gt=0, le=1, description="Draws z towards its mean: less variety, more typical samples."
    )
    format: FormatName | None = Field(None, description="Of each sample, png by default; jpg is jpeg; not for npz.")
    container: ContainerName = Field(
        "tar",
        description="- `tar`: as WebDataset reads it, a `.json` with seed and class beside each sample.\n"
        "- `zip`: the samples, and a `.jsonl` with seed and class of each.\n"
        "- `npz`: `images` uint8 [n, H, W, C], `seeds` int64 and `classes` int64 (indices; -1 without classes).\n"
        "- `parquet`: `image` (`bytes`, `path`), `seed`, `label` and `class`; where pyarrow is installed.",
    )
    shard_size: int | None = Field(
        None, ge=1, le=65_536, description="Samples of each file; by default a few seconds' work, or less."
    )


class BatchProgress(View):
    """How far it is."""

    done: int = Field(description="Samples in shards that are stored.")
    total: int
    percent: float
    samples_per_second: float | None
    eta_seconds: float | None


class BatchArchive(View):
    """All shards as one file."""

    size: int = Field(description="Bytes.")
    sha256: str


class Batch(View):
    """Samples that are made in the background."""

    id: str
    status: Status
    desired: Literal["run", "cancel"]
    model: str = Field(description="The lasting name of what makes them, such as `digits:3`.")
    sha256: str = Field(description="Of its generator.safetensors.")
    seeds: str = Field(description="As text.")
    class_: str | None = Field(serialization_alias="class", validation_alias="class")
    truncation: float
    format: str | None = Field(description="null with npz, which holds pixels.")
    container: ContainerName
    shard_size: int
    shards: int = Field(description="How many there will be.")
    progress: BatchProgress
    archive: BatchArchive | None = Field(description="Once it has succeeded.")
    attempt: int
    fence: int
    worker: str | None
    error: Failure | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    expires_at: Time | None = Field(description="When its files are deleted; known once it has ended.")

    @classmethod
    def of(cls, row: tables.Batch) -> Self:
        options, done = row.options, row.progress["done"]
        own = {
            **{name: options[name] for name in ("truncation", "format", "container", "shard_size")},
            "class": None if options["class"] is None else row.info["classes"][options["class"]],
            "shards": batches.shard_count(row),
            "progress": row.progress | {"total": row.total, "percent": round(100 * done / row.total, 2)},
        }
        same = {name: getattr(row, name) for name in cls.model_fields if name not in own and name != "class_"}
        return cls.model_validate(same | own)


class Shard(View):
    """One file, whose samples are of these seeds."""

    index: int
    samples: int
    seeds: str
    size: int = Field(description="Bytes.")
    sha256: str
    engine: str = Field(description="Digest of what decides the bits beside the model: device, threads, torch ...")
    encoder: str | None = Field(description="Library, version and settings; null with npz.")


class BatchManifest(View):
    """What is in a batch, to check its files by. Of one that is not ready yet, the shards that are stored."""

    batch: str
    model: str
    sha256: str = Field(description="Of generator.safetensors.")
    dataset_sha256: str | None = Field(description="Of what the model learned from.")
    classes: list[str]
    shape: list[int] = Field(description="Of the pixels of each sample: height, width, channels.")
    class_: str | None = Field(serialization_alias="class", validation_alias="class")
    truncation: float
    format: str | None
    container: ContainerName
    seeds: str
    samples: int
    engine: str | None = Field(description="Of all shards; null where it changed on the way.")
    encoder: str | None = Field(description="Of all shards; null where it changed on the way, and with npz.")
    archive: BatchArchive | None
    shards: list[Shard]

    @classmethod
    def of(cls, row: tables.Batch, made: list[tables.BatchShard]) -> Self:
        view = Batch.of(row)
        own = {
            "batch": row.id,
            "dataset_sha256": (row.info.get("dataset") or {}).get("sha256"),
            "classes": row.info["classes"],
            "class": view.class_,
            "shape": sample_shape(row.info),
            "samples": row.total,
            "engine": _only({shard.engine for shard in made}),
            "encoder": _only({shard.encoder for shard in made}),
            "shards": _listed(row, made),
        }
        same = {name: getattr(view, name) for name in cls.model_fields if name not in own and name != "class_"}
        return cls.model_validate(same | own)


def _listed(row: tables.Batch, made: list[tables.BatchShard]) -> list[Shard]:
    """The shards with the seeds of each."""
    parts = ranges.parts(parse_ranges(row.seeds, limit=MAX_INTEGER), row.options["shard_size"])
    same = [name for name in Shard.model_fields if name != "seeds"]
    pairs = zip(made, parts, strict=False)
    return [Shard(seeds=ranges.text(part), **{name: getattr(shard, name) for name in same}) for shard, part in pairs]


def _only(values: set[str] | set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
