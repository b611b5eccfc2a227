"""Who waits when the sampler is closed, with real generators: each is answered, wherever it is."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from app.errors import Unavailable
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import LOADERS, Latents, Sampler
from app.settings import Settings
from app.storage import Storage
from models.randomness import sample_latents
from tests.app.sampling.loads import count_loads
from tests.generators import store_generator
from tests.servers import wait_until


def test_closing_answers_who_still_waits(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """A shutdown does not leave requests hanging, and later ones are refused."""
    sampler = Sampler(settings, storage)

    async def scenario() -> None:
        await sampler.generate(dcgan, [0])
        waiting = asyncio.create_task(sampler.generate(dcgan, list(range(20_000))))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(sampler.close)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 20)
        with pytest.raises(Unavailable):
            await sampler.generate(dcgan, [0])

    asyncio.run(scenario())


def test_closing_while_a_model_loads_answers_who_waits_for_it(
    settings: Settings, storage: Storage, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose model is loaded when the service has stopped is refused; it does not wait for ever."""
    sampler = Sampler(settings, storage)
    may_end = threading.Event()
    loads = count_loads(monkeypatch, may_end)

    async def scenario() -> None:
        waiting = asyncio.create_task(sampler.generate(dcgan, [0]))
        await asyncio.to_thread(wait_until, lambda: len(loads) == 1)
        closing_down = asyncio.create_task(asyncio.to_thread(sampler.close))
        await asyncio.sleep(0.1)
        may_end.set()
        with pytest.raises(Unavailable, match="shutting down"):
            await asyncio.wait_for(waiting, 20)
        await closing_down

    asyncio.run(scenario())


def test_closing_answers_who_waits_for_the_loaders(
    settings: Settings, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a model is being loaded, has yet to be, or is to be verified for mixtures, and also who asks for the first ETag:
    all are told that the service shuts down.
    """
    *busy, queued = [store_generator(storage, tmp_path, f"m{seed}", seed=seed) for seed in range(LOADERS)] + [
        store_generator(storage, tmp_path, "last", classes=("cat", "dog"), seed=9)
    ]
    mixtures = Latents(sample_latents([1], 16), np.array([[0.5, 0.5]], np.float32))
    may_end = threading.Event()
    loads = count_loads(monkeypatch, may_end)
    sampler = Sampler(settings, storage)

    async def scenario() -> None:
        asked = [asyncio.create_task(sampler.generate(model, [1])) for model in busy]
        await asyncio.to_thread(wait_until, lambda: len(loads) == len(busy))
        asked += [asyncio.create_task(sampler.generate(queued, [seed])) for seed in range(2)]
        asked += [asyncio.create_task(sampler.gather(queued, mixtures, deadline_seconds=20))]
        tag = asyncio.create_task(sampler.etag(queued, FORMATS["png"], 1))
        await asyncio.sleep(0)
        closing_down = asyncio.create_task(asyncio.to_thread(sampler.close))
        await asyncio.wait([tag, *asked[len(busy) :]], timeout=20)
        may_end.set()
        answers = await asyncio.gather(*asked, tag, return_exceptions=True)
        assert {str(answer) for answer in answers} == {"The service is shutting down."}
        assert {type(answer) for answer in answers} == {Unavailable}
        await closing_down

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert sorted(loads) == sorted(model.label for model in busy)


def test_what_runs_beside_the_loop_is_closed_too(settings: Settings, storage: Storage) -> None:
    """What has begun ends; what waits and what comes later is told."""
    sampler = Sampler(settings, storage)
    begun, may_end = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        may_end.wait(20)
        return "done"

    async def scenario() -> None:
        running = asyncio.create_task(sampler.beside(first))
        await asyncio.to_thread(begun.wait, 20)
        closing_down = asyncio.create_task(asyncio.to_thread(sampler.close))
        await asyncio.sleep(0.1)
        may_end.set()
        assert await running == "done"
        await closing_down
        with pytest.raises(Unavailable, match="shutting down"):
            await sampler.beside(first)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_closing_before_mixtures_are_verified(
    settings: Settings, storage: Storage, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose next step would be another task of the loaders is told so too; so is the first who asks for an ETag later."""
    mixtures = Latents(sample_latents([1], 16), np.array([[0.5, 0.5, 0]], np.float32))
    may_end = threading.Event()
    loads = count_loads(monkeypatch, may_end)
    sampler = Sampler(settings, storage)

    async def scenario() -> None:
        waiting = asyncio.create_task(sampler.gather(dcgan, mixtures))
        await asyncio.to_thread(wait_until, lambda: len(loads) == 1)
        closing_down = asyncio.create_task(asyncio.to_thread(sampler.close))
        await asyncio.sleep(0.1)
        may_end.set()
        for late in (waiting, sampler.etag(dcgan, FORMATS["png"], 1)):
            with pytest.raises(Unavailable, match="shutting down"):
                await late
        await closing_down

    asyncio.run(asyncio.wait_for(scenario(), 30))
