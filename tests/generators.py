"""Real, untrained generators in the storage, with a published version: enough to serve samples."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from app import registry
from app.db import Database, clock
from app.registry import Resolved
from app.storage import Storage
from app.tables import ModelVersion
from models.build import build_generator
from models.catalog import parse_network
from models.config import DataSpec
from models.manifest import MANIFEST, WEIGHTS

GAIN = 8.0  # fresh networks make gray; this spreads the pixels over their whole range


def export_generator(
    folder: Path, *, size: int = 8, channels: int = 1, classes: Sequence[str] = (), seed: int = 0, **network: Any
) -> str:
    """Write a snapshot to `folder` and return the SHA-256 of its weights."""
    data = DataSpec(examples=100, height=size, width=size, channels=channels, classes=tuple(classes))
    options = parse_network({"family": "dcgan", "conditional": bool(classes), "z_dim": 16, **network})
    generator = build_generator(options, data, seed, torch.device("cpu"))
    weights = {
        name: value * GAIN if name.endswith("weight") and value.ndim > 1 and options.family == "dcgan" else value
        for name, value in generator.state_dict().items()
    }
    content = safetensors.torch.save(weights)
    sha256 = hashlib.sha256(content).hexdigest()
    manifest = {
        "format": 1,
        "network": options.model_dump(),
        "family": options.family,
        "height": size,
        "width": size,
        "channels": channels,
        "classes": list(classes),
        "z_dim": options.z_dim,
        "conditional": bool(classes),
        "examples_seen": 64,
        "config": {},
        "dataset": {"sha256": "d" * 64, "examples": 100},
        "metrics": {"kid": None},
        "fingerprint": {},
        "sha256": sha256,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return sha256


def store_generator(storage: Storage, scratch: Path, name: str, **shape: object) -> Resolved:
    """Put a generator into the storage, and say what a reference to `name:1` would resolve to."""
    folder = scratch / name
    sha256 = export_generator(folder, **shape)  # type: ignore[arg-type]
    key = f"jobs/job_{name}/1/checkpoints/000000000064"
    for file in (WEIGHTS, MANIFEST):
        storage.put_bytes(f"{key}/{file}", (folder / file).read_bytes())
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    info = {
        part: manifest[part] for part in ("family", "height", "width", "channels", "classes", "z_dim", "conditional")
    }
    return Resolved(f"{name}:1", f"{name}:1", sha256, key, info, pinned=True, examples_seen=64, kid=None)


def publish_generator(database: Database, storage: Storage, scratch: Path, name: str, **shape: object) -> Resolved:
    """A generator that is the version 1 of the model `name`."""
    stored = store_generator(storage, scratch, name, **shape)
    with database.writing() as session:
        session.add(
            ModelVersion(
                name=name,
                version=1,
                snapshot_key=stored.snapshot_key,
                sha256=stored.sha256,
                size=1,
                examples_seen=64,
                info=stored.info,
                created_at=clock(session),
            )
        )
    with database.reading() as session:
        return registry.resolve(session, f"{name}:1")
