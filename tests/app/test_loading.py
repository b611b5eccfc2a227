"""Loading generators: once, within a limit, and what happens to damaged files."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from app.errors import Gone, Unavailable
from app.registry import Resolved
from app.sampling import Sampler, Samples, engine
from app.settings import Settings
from app.storage import Storage
from models.manifest import MANIFEST, WEIGHTS
from tests.generators import store_generator


def test_a_model_loads_once_however_many_ask(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty requests for a cold model are one load; the first of them giving up changes nothing for the others."""
    loads = count_loads(monkeypatch)

    async def scenario() -> None:
        asked = [asyncio.create_task(sampler.generate(dcgan, [seed])) for seed in range(50)]
        await asyncio.sleep(0)
        asked[0].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, Samples) for answer in answers[1:])

    asyncio.run(scenario())
    assert loads == ["dcgan:1"]


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loads: list[str] = []
    load = engine.load

    def counted(snapshot: Path, label: str) -> Any:
        loads.append(label)
        return load(snapshot, label)

    monkeypatch.setattr(engine, "load", counted)
    return loads


def test_the_longest_unused_model_is_dropped(
    settings: Settings, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two, the one used last stays and the one unused for longest is loaded again; its samples are the same."""
    models = [store_generator(storage, tmp_path, f"m{seed}", seed=seed) for seed in range(3)]
    size = sum(array.nbytes for array in load_file(tmp_path / "m0" / WEIGHTS).values())
    loads = count_loads(monkeypatch)
    roomy = settings.model_copy(update={"sampler_memory_bytes": size * 5 // 2})

    async def scenario(sampler: Sampler) -> None:
        first = await sampler.generate(models[0], [1])
        for index in (1, 0, 2, 0):
            await sampler.generate(models[index], [1])
        assert loads == ["m0:1", "m1:1", "m2:1"]
        await sampler.generate(models[1], [1])
        assert loads[3:] == ["m1:1"]
        assert np.array_equal((await sampler.generate(models[0], [1])).images, first.images)

    with closing(Sampler(roomy, storage)) as sampler:
        asyncio.run(scenario(sampler))


def test_one_model_larger_than_the_limit_still_serves(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """The limit decides what is kept, never what can be asked for."""
    with closing(Sampler(settings.model_copy(update={"sampler_memory_bytes": 1}), storage)) as sampler:
        assert len(asyncio.run(sampler.generate(dcgan, [1, 2]))) == 2


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


def test_a_remote_snapshot_is_fetched_once_and_again_when_damaged(
    settings: Settings, dcgan: Resolved, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without local files the snapshot is copied into the cache folder, checked, and replaced when the disk has spoilt it."""
    monkeypatch.setattr(storage, "local_path", lambda _: None)
    fetched: list[str] = []
    get_file = storage.get_file
    monkeypatch.setattr(storage, "get_file", lambda key, path: (fetched.append(key), get_file(key, path)))

    def serve() -> bytes:
        with closing(Sampler(settings, storage)) as sampler:
            return asyncio.run(sampler.generate(dcgan, [3])).images.tobytes()

    first = serve()
    assert serve() == first
    assert len(fetched) == 2
    copy = settings.cache_dir / "snapshots" / dcgan.sha256 / WEIGHTS
    copy.write_bytes(b"spoilt")
    assert serve() == first
    assert len(fetched) == 4
