"""Stored files that are damaged, exchanged or gone."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import Gone, Unavailable
from app.registry import Resolved
from app.sampling import Sampler, engine
from app.storage import Storage
from models.manifest import MANIFEST, WEIGHTS


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_model_is_a_clear_error_until_it_is_mended(
    sampler: Sampler, storage: Storage, dcgan: Resolved, mlp: Resolved, file: str, damage: str
) -> None:
    """Damaged is 503, missing is 410; other models go on, and once the file is back the model serves again."""
    key = f"{dcgan.snapshot_key}/{file}"
    good = storage.get_bytes(key)
    spoil(storage, key, good, damage)

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(Gone if damage == "missing" else Unavailable, match="dcgan:1"):
                await sampler.generate(dcgan, [1])
        assert len(await sampler.generate(mlp, [1])) == 1
        storage.put_bytes(key, good)
        assert len(await sampler.generate(dcgan, [1])) == 1

    asyncio.run(scenario())


def spoil(storage: Storage, key: str, good: bytes, damage: str) -> None:
    if damage == "missing":
        storage.delete([key])
    elif damage == "truncated":
        storage.put_bytes(key, good[: len(good) // 2])
    else:
        middle = len(good) // 2
        storage.put_bytes(key, good[:middle] + bytes([good[middle] ^ 0x80]) + good[middle + 1 :])


@pytest.mark.parametrize(
    "changed",
    [
        {"height": 9},
        {"height": 4, "width": 16},
        {"classes": ["a", "b"]},
        {"conditional": True, "classes": ["a"]},
        {"z_dim": 17},
        {"network": {"family": "mlp", "conditional": False, "z_dim": 16, "class_dropout": 0.5}},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    sampler: Sampler, storage: Storage, mlp: Resolved, dcgan: Resolved, changed: dict[str, Any]
) -> None:
    """Whether or not the weights fit what it says now; other models go on."""
    key = f"{mlp.snapshot_key}/{MANIFEST}"
    storage.put_bytes(key, json.dumps(json.loads(storage.get_bytes(key)) | changed).encode())

    async def scenario() -> None:
        with pytest.raises(Unavailable, match="mlp:1"):
            await sampler.generate(recorded_network(mlp), [1])
        assert len(await sampler.generate(dcgan, [1])) == 1

    asyncio.run(scenario())


def recorded_network(model: Resolved) -> Resolved:
    """As versions are on record, an option being left to its default."""
    return replace(model, info=model.info | {"network": {"family": "mlp", "conditional": False, "z_dim": 16}})


def test_what_is_left_to_defaults_on_record_is_no_difference(sampler: Sampler, mlp: Resolved) -> None:
    """A record is as old as its job, and options come to be; the manifest has them all."""
    assert len(asyncio.run(sampler.generate(recorded_network(mlp), [1]))) == 1


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST])
def test_files_that_are_deleted_before_they_are_read_are_gone(tmp_path: Path, mlp: Resolved, file: str) -> None:
    """A deletion may fall between the look for them and their reading."""
    (tmp_path / "mlp" / file).unlink()
    with pytest.raises(Gone, match="mlp:1"):
        engine.load(tmp_path / "mlp", mlp)


def test_other_files_than_those_on_record_are_refused(sampler: Sampler, dcgan: Resolved, storage: Storage) -> None:
    """A snapshot that is whole, but not the one that the version was published with, is not served."""
    exchanged = replace(dcgan, sha256="0" * 64)
    with pytest.raises(Unavailable, match="not the ones on record"):
        asyncio.run(sampler.generate(exchanged, [1]))
