"""The generator that all servers get: dcgan of 64 base channels, 32 x 32 RGB, and this service's data folder with copies of it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from app.db import Database, clock
from app.settings import Settings
from app.storage import Storage
from app.tables import ModelVersion
from models.build import build_generator
from models.catalog import parse_network
from models.config import DataSpec, NetworkOptions
from models.manifest import MANIFEST, WEIGHTS
from models.randomness import sample_latents

WIDTH, SIZE, CHANNELS, Z_DIM = 64, 32, 3, 128
CALIBRATION = 1024  # seeds whose activations become the running statistics
DESCRIPTION = ("family", "network", "height", "width", "channels", "classes", "z_dim", "conditional")


def write_snapshot(folder: Path, tint: float = 0.0) -> Path:
    """The same weights whenever it is called; pictures of the whole range, as trained ones are. `tint` makes it another model."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = _weights()
    weights["stages.2.bias"] = weights["stages.2.bias"] + tint
    content = safetensors.torch.save(weights)
    network = _options().model_dump()
    manifest = {
        "format": 1,
        "network": network,
        "family": network["family"],
        "height": SIZE,
        "width": SIZE,
        "channels": CHANNELS,
        "classes": [],
        "z_dim": Z_DIM,
        "conditional": False,
        "examples_seen": 64,
        "config": {},
        "dataset": {"sha256": "d" * 64, "examples": 100},
        "metrics": {"kid": None},
        "fingerprint": {},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / WEIGHTS).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _options() -> NetworkOptions:
    return parse_network({"family": "dcgan", "conditional": False, "z_dim": Z_DIM, "width": WIDTH})


_made: dict[str, Tensor] = {}


def _weights() -> dict[str, Tensor]:
    if not _made:
        data = DataSpec(examples=100, height=SIZE, width=SIZE, channels=CHANNELS, classes=())
        network = build_generator(_options(), data, 0, torch.device("cpu"))
        _calibrate(network)
        _made.update(network.state_dict())
    return dict(_made)


@torch.no_grad()
def _calibrate(network: nn.Module) -> None:
    """Running statistics of the network's own activations, and a last layer whose pictures reach black and white."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average
    z = torch.from_numpy(sample_latents(range(CALIBRATION), Z_DIM).astype(np.float32))
    images = network.train()(z)
    network.eval()
    last = network.stages[-1]
    last.weight.div_(torch.atanh(images.clamp(-0.999, 0.999)).std())


def publish(settings: Settings, snapshots: Iterable[Path], names: Sequence[str]) -> None:
    """Version 1 of a model for each snapshot."""
    storage, database = Storage(settings.storage_url), Database(settings)
    database.migrate()
    try:
        for snapshot, name in zip(snapshots, names, strict=True):
            key = f"bench/{name}"
            for file in (WEIGHTS, MANIFEST):
                storage.put_file(f"{key}/{file}", snapshot / file)
            _add(
                database, name, key, json.loads((snapshot / MANIFEST).read_text()), (snapshot / WEIGHTS).stat().st_size
            )
    finally:
        database.close()


def _add(database: Database, name: str, key: str, manifest: dict, size: int) -> None:
    info = {part: manifest[part] for part in DESCRIPTION} | {
        "dataset": manifest["dataset"] | {"id": None, "name": "bench"}
    }
    with database.writing() as session:
        session.add(
            ModelVersion(
                name=name,
                version=1,
                snapshot_key=key,
                sha256=manifest["sha256"],
                size=size,
                examples_seen=manifest["examples_seen"],
                info=info,
                created_at=clock(session),
            )
        )
