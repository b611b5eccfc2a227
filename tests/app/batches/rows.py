"""Batches in the state that a test wants, made by the functions that make them in the service."""

from typing import Any

from sqlalchemy.orm import Session

from app import batches
from app.tables import Batch, ModelVersion

INFO: dict[str, Any] = {
    "family": "dcgan",
    "height": 8,
    "width": 8,
    "channels": 1,
    "classes": ["cat", "dog"],
    "z_dim": 16,
    "conditional": True,
    "dataset": {"sha256": "d" * 64},
}


def make_version(session: Session, name: str = "cats", version: int = 1, **info: Any) -> str:
    """The lasting name of a published version."""
    row = ModelVersion(
        name=name,
        version=version,
        snapshot_key=f"jobs/job_{name}/{version}/checkpoints/1",
        sha256="a" * 64,
        size=1,
        examples_seen=1,
        info=INFO | info,
        created_at=1.0,
    )
    session.add(row)
    session.flush()
    return f"{name}:{version}"


def make_batch(session: Session, seeds: str = "0-9", **request: Any) -> Batch:
    """A queued batch of `cats:1`, in shards of four."""
    if session.get(ModelVersion, ("cats", 1)) is None:
        make_version(session)
    return batches.submit(session, batches.Request(**({"model": "cats", "seeds": seeds, "shard_size": 4} | request)))


def claimed(session: Session, batch: Batch) -> Batch:
    """The batch, which is the only one that waits, claimed."""
    claim = batches.claim(session, "worker")
    assert claim is batch
    return claim


def new_shard(batch: Batch, index: int, **fields: Any) -> batches.NewShard:
    """What the present claim reports once a shard's object is stored."""
    samples = min(4, batch.total - 4 * index)
    described: dict[str, Any] = {"samples": samples, "size": 10, "body": 9, "sha256": "5" * 64, "engine": "e" * 64}
    return batches.NewShard(index=index, key=batches.shard_key(batch, index), encoder="pillow", **(described | fields))


def record(session: Session, batch: Batch, *indices: int) -> None:
    for index in indices:
        batches.record_shard(session, batch.id, batch.fence, new_shard(batch, index), 100.0)


def succeeded(session: Session, batch: Batch) -> Batch:
    """The batch, made."""
    claimed(session, batch)
    record(session, batch, *range(batches.shard_count(batch)))
    batches.succeed(session, batch.id, batch.fence, size=30, sha256="9" * 64, directory=None)
    session.flush()
    return batch
