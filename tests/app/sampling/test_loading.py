"""Loading generators: once, for those who wait, and within a limit."""

import asyncio
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from app.errors import Busy, DeadlineExceeded, TooHeavy, Unavailable
from app.registry import Resolved
from app.sampling import LOADERS, Latents, Sampler, Samples, Seeds, engine, loaded, shapes
from app.settings import Settings
from app.storage import Storage
from models.randomness import sample_latents
from tests.app.sampling.loads import count_loads
from tests.generators import store_generator
from tests.servers import wait_until


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


def test_what_nobody_waits_for_any_more_is_not_loaded(
    sampler: Sampler, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the loaders are busy, a model whose requests have all given up leaves their queue; one that a single request still
    wants stays in it, and one that is asked for again comes in again.
    """
    models = [store_generator(storage, tmp_path, f"m{seed}", seed=seed) for seed in range(LOADERS + 3)]
    *busy, dropped, shared, again = models
    may_end = threading.Event()
    loads = count_loads(monkeypatch, may_end)

    async def scenario() -> None:
        first = [asyncio.create_task(sampler.generate(model, [1])) for model in busy]
        await asyncio.to_thread(wait_until, lambda: len(loads) == len(busy))
        hurried = [sampler.gather(model, Seeds([1]), deadline_seconds=1.0) for model in (dropped, shared, again, again)]
        patient = asyncio.create_task(sampler.generate(shared, [1]))
        late = await asyncio.gather(*hurried, return_exceptions=True)
        assert [type(answer) for answer in late] == [DeadlineExceeded] * len(hurried)
        anew = asyncio.create_task(sampler.generate(again, [1]))
        await asyncio.sleep(0)
        may_end.set()
        assert [len(samples) for samples in await asyncio.gather(*first, patient, anew)] == [1] * (len(busy) + 2)

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert sorted(loads) == sorted(model.label for model in models if model is not dropped)


def test_a_load_under_way_ends_and_is_kept(sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries again after a deadline that was too short finds the model."""
    may_end = threading.Event()
    loads = count_loads(monkeypatch, may_end)

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await sampler.gather(dcgan, Seeds([1]), deadline_seconds=0.05)
        may_end.set()
        await asyncio.to_thread(wait_until, lambda: dcgan.sha256 in sampler.cache)
        assert len(await sampler.generate(dcgan, [1])) == 1

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert loads == ["dcgan:1"]


def test_no_more_models_wait_than_can_be_loaded_soon(
    sampler: Sampler, dcgan: Resolved, mlp: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are told to come again, and are served when they do."""
    monkeypatch.setattr(loaded, "MOST_RUNS", 1)
    may_end = threading.Event()
    count_loads(monkeypatch, may_end)

    async def scenario() -> None:
        first = [asyncio.create_task(sampler.generate(dcgan, [seed])) for seed in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="try again") as refused:
            await sampler.generate(mlp, [1])
        assert refused.value.headers == {"Retry-After": "1"}
        may_end.set()
        assert [len(samples) for samples in await asyncio.gather(*first)] == [1, 1, 1]
        assert len(await sampler.generate(mlp, [1])) == 1

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_model_that_is_too_heavy_is_tried_once(
    sampler: Sampler, dcgan: Resolved, mlp: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again gets the same answer without another try; other models are served."""
    loads = count_loads(monkeypatch)

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(shapes, "MOST_FORWARD_SECONDS", 0.0)
            with pytest.raises(TooHeavy, match="download it"):
                await sampler.generate(dcgan, [1])
        with pytest.raises(TooHeavy, match="download it"):
            await sampler.generate(dcgan, [1])
        assert len(await sampler.generate(mlp, [1])) == 1

    asyncio.run(scenario())
    assert loads == ["dcgan:1", "mlp:1"]


def test_mixtures_that_could_not_be_verified_are_tried_again(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short for a moment the request is refused, others of the model go on, and the next one is served."""
    from models.generator import LoadedGenerator

    forward = LoadedGenerator.forward

    def short(generator: LoadedGenerator, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        if labels is not None and labels.ndim == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(generator, z, labels)

    mixtures = Latents(sample_latents([1, 2], 16), np.array([[0.5, 0.5, 0], [0, 0.25, 0.75]], np.float32))

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(LoadedGenerator, "forward", short)
            for _ in range(2):
                with pytest.raises(Unavailable, match="too little memory"):
                    await sampler.gather(dcgan, mixtures)
            assert len(await sampler.generate(dcgan, [1])) == 1
        assert len(await sampler.gather(dcgan, mixtures)) == 2

    asyncio.run(scenario())


def test_mixtures_that_are_too_heavy_are_tried_once(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model itself is served."""
    mixtures = Latents(sample_latents([1], 16), np.array([[0.5, 0.5, 0]], np.float32))

    async def scenario() -> None:
        await sampler.generate(dcgan, [1])
        with monkeypatch.context() as patch:
            patch.setattr(shapes, "MOST_FORWARD_SECONDS", 0.0)
            with pytest.raises(TooHeavy, match="download it"):
                await sampler.gather(dcgan, mixtures)
        with pytest.raises(TooHeavy, match="download it"):
            await sampler.gather(dcgan, mixtures)
        assert len(await sampler.generate(dcgan, [2])) == 1

    asyncio.run(scenario())


def test_a_model_is_not_loaded_into_memory_that_is_not_there(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before the kernel has to end somebody's process, and served once there is room."""
    with monkeypatch.context() as patch:
        patch.setattr(engine, "spare_memory", lambda: 1_000)
        with pytest.raises(Unavailable, match="too little memory to load dcgan:1 now"):
            asyncio.run(sampler.generate(dcgan, [1]))
    assert len(asyncio.run(sampler.generate(dcgan, [1]))) == 1


def test_the_longest_unused_model_is_dropped(
    settings: Settings, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two, the one used last stays and the one unused for longest is loaded again; its samples are the same."""
    models = [store_generator(storage, tmp_path, f"m{seed}", seed=seed) for seed in range(3)]
    loads = count_loads(monkeypatch)

    async def scenario(sampler: Sampler) -> None:
        first = await sampler.generate(models[0], [1])
        sampler.cache.limit_bytes = sum(sampler.cache.sizes().values()) * 5 // 2
        for index in (1, 0, 2, 0):
            await sampler.generate(models[index], [1])
        assert loads == ["m0:1", "m1:1", "m2:1"]
        await sampler.generate(models[1], [1])
        assert loads[3:] == ["m1:1"]
        assert np.array_equal((await sampler.generate(models[0], [1])).images, first.images)

    with closing(Sampler(settings, storage)) as sampler:
        asyncio.run(scenario(sampler))


def test_what_is_loaded_can_be_listed_while_models_are_used(sampler: Sampler, dcgan: Resolved, mlp: Resolved) -> None:
    """Another thread reads the sizes while the loop uses now this model and now that one."""

    async def scenario() -> None:
        for model in (dcgan, mlp):
            await sampler.generate(model, [1])
        list_often = asyncio.to_thread(lambda: [sampler.cache.sizes() for _ in range(20_000)])
        listing = asyncio.create_task(list_often)
        while not listing.done():
            for model in (dcgan, mlp) * 100:
                sampler.cache.peek(model.sha256)
            await asyncio.sleep(0)
        assert all(sizes.keys() == {dcgan.sha256, mlp.sha256} for sizes in await listing)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(scenario())
    finally:
        sys.setswitchinterval(interval)


def test_one_model_larger_than_the_limit_still_serves(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """The limit decides what is kept, never what can be asked for."""
    with closing(Sampler(settings.model_copy(update={"sampler_memory_bytes": 1}), storage)) as sampler:
        assert len(asyncio.run(sampler.generate(dcgan, [1, 2]))) == 2


def test_a_remote_snapshot_leaves_nothing_on_this_disk(
    settings: Settings, dcgan: Resolved, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without local files the snapshot is fetched, loaded once however many samples follow, and its copy is dropped."""
    local = asyncio.run(sample_of(settings, storage, dcgan))
    monkeypatch.setattr(storage, "local_path", lambda _: None)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    fetched: list[str] = []
    get_file = storage.get_file
    monkeypatch.setattr(storage, "get_file", lambda key, path: (fetched.append(key), get_file(key, path)))
    assert asyncio.run(sample_of(settings, storage, dcgan)) == local
    assert len(fetched) == 2
    assert list(scratch.iterdir()) == []
    assert not settings.cache_dir.exists()


async def sample_of(settings: Settings, storage: Storage, model: Resolved) -> bytes:
    """By a new sampler, asked twice."""
    with closing(Sampler(settings, storage)) as sampler:
        first = await sampler.generate(model, [3])
        again = await sampler.generate(model, [3])
        assert np.array_equal(first.images, again.images)
        return first.images.tobytes()
