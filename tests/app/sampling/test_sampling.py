"""The sampler, with real generators: determinism, fairness, limits, leaving."""

import asyncio
import random
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from app.errors import Busy, Unavailable
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import Sampler, Samples, Seeds
from app.settings import Settings
from app.storage import Storage
from tests.servers import wait_until


def same(one: Samples, other: Samples) -> bool:
    return np.array_equal(one.images, other.images) and one.labels == other.labels


def test_a_seed_does_not_depend_on_its_company(sampler: Sampler, dcgan: Resolved, mlp: Resolved) -> None:
    """Hundreds of requests of all sizes, for two models, in any order and at once, give each seed what it gives alone."""
    dice = random.Random(0)
    sizes = [dice.choice([1, 1, 1, 2, 3, 7, 16, 64, 100]) for _ in range(200)]
    requests = [
        (dice.choice([dcgan, mlp]), [dice.randrange(40) for _ in range(size)], dice.choice([1.0, 0.5]))
        for size in sizes
    ]

    async def scenario() -> None:
        alone: dict[tuple[str, int, float], np.ndarray] = {}
        for model in (dcgan, mlp):
            for truncation in (1.0, 0.5):
                for seed in range(40):
                    made = await sampler.generate(model, [seed], None, truncation)
                    alone[model.label, seed, truncation] = made.images[0]
        for _ in range(2):
            dice.shuffle(requests)
            for wave in (requests[:100], requests[100:]):
                answers = await asyncio.gather(*(sampler.generate(m, seeds, None, t) for m, seeds, t in wave))
                for (model, seeds, truncation), made in zip(wave, answers, strict=True):
                    expected = np.stack([alone[model.label, seed, truncation] for seed in seeds])
                    assert np.array_equal(made.images, expected)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_seeds_class_and_truncation_each_matter(sampler: Sampler, dcgan: Resolved) -> None:
    """Another seed, class or truncation is another image; without a class the seed decides, and says which it took."""

    async def scenario() -> None:
        base = await sampler.generate(dcgan, [5])
        assert base.labels is not None
        given = await sampler.generate(dcgan, [5], base.labels)
        assert same(base, given)
        others = [
            await sampler.generate(dcgan, [6], base.labels),
            await sampler.generate(dcgan, [5], [(base.labels[0] + 1) % 3]),
            await sampler.generate(dcgan, [5], base.labels, 0.3),
        ]
        assert not any(np.array_equal(base.images, other.images) for other in others)
        many = await sampler.generate(dcgan, list(range(60)))
        assert set(many.labels or ()) == {0, 1, 2}

    asyncio.run(scenario())


def test_the_largest_seed_is_an_address_too(sampler: Sampler, mlp: Resolved) -> None:
    """Seeds up to 2**63 - 1 work, and an unconditional model has no labels."""
    made = asyncio.run(sampler.generate(mlp, [2**63 - 1, 0]))
    assert made.labels is None
    assert made.images.shape == (2, 8, 8, 1)
    assert not np.array_equal(made.images[0], made.images[1])


def test_a_stream_gives_the_same_in_parts(sampler: Sampler, dcgan: Resolved) -> None:
    """Parts come in order and make up the whole."""

    async def scenario() -> None:
        seeds = list(range(150))
        parts = [part async for part in sampler.stream(dcgan, Seeds.of(seeds))]
        assert len(parts) > 1
        whole = await sampler.generate(dcgan, seeds)
        assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
        assert [label for part in parts for label in part.labels or ()] == whole.labels

    asyncio.run(scenario())


def test_a_full_queue_is_busy_and_says_when(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """Beyond the limit a request is refused with Retry-After, and let in again when the others are done."""
    small = settings.model_copy(update={"sampler_queue_images": 100})

    async def scenario(sampler: Sampler) -> None:
        large = asyncio.create_task(
            sampler.generate(dcgan, list(range(1000)))
        )  # alone, it may be larger than the queue
        await asyncio.sleep(0)
        with pytest.raises(Busy) as caught:
            await sampler.generate(dcgan, [1])
        assert int(caught.value.headers["Retry-After"]) >= 1
        await large
        assert len(await sampler.generate(dcgan, [1])) == 1

    with closing(Sampler(small, storage)) as sampler:
        asyncio.run(scenario(sampler))


def test_one_who_leaves_frees_the_place(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """Cancelled work leaves the queue undone, and its place is free at once: while waiting, while loading, in mid-stream."""
    small = settings.model_copy(update={"sampler_queue_images": 100})

    async def scenario(sampler: Sampler) -> None:
        for _ in range(3):
            asked = asyncio.create_task(sampler.generate(dcgan, list(range(100_000))))
            await asyncio.sleep(0.05)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert len(await asyncio.wait_for(sampler.generate(dcgan, list(range(100))), 20)) == 100
        stream = sampler.stream(dcgan, Seeds.of(range(100_000)))
        await anext(stream)
        await stream.aclose()
        assert len(await asyncio.wait_for(sampler.generate(dcgan, list(range(100))), 20)) == 100

    with closing(Sampler(small, storage)) as sampler:
        asyncio.run(scenario(sampler))


def test_a_slow_reader_does_not_fill_the_queue(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """Samples that are made wait for nothing but their reader: others are let in, and what was made is there when it comes back."""
    small = settings.model_copy(update={"sampler_queue_images": 100})

    async def scenario(sampler: Sampler) -> None:
        stream = sampler.stream(dcgan, Seeds.of(range(1000)))
        parts = [await anext(stream)]
        await asyncio.to_thread(wait_until, lambda: sampler.admission.waiting == 0, seconds=10)
        assert len(await sampler.generate(dcgan, list(range(100)))) == 100
        parts += [part async for part in stream]
        assert sum(map(len, parts)) == 1000
        assert sampler.admission.waiting == 0

    with closing(Sampler(small, storage)) as sampler:
        asyncio.run(asyncio.wait_for(scenario(sampler), 30))


def test_one_sample_need_not_wait_for_thousands(sampler: Sampler, dcgan: Resolved, mlp: Resolved) -> None:
    """A small request, for the same model or another, overtakes what is left of a large one."""

    async def scenario() -> None:
        for model in (dcgan, mlp):
            await sampler.generate(model, [0])
        large = asyncio.create_task(sampler.generate(dcgan, list(range(4000))))
        await asyncio.sleep(0.02)
        for model in (dcgan, mlp):
            await sampler.generate(model, [1])
        assert not large.done()
        await large

    asyncio.run(scenario())


def too_large() -> None:
    import torch

    torch.empty(10**15)


def lost() -> None:
    raise RuntimeError("the device is lost")


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (lambda: np.empty(10**15), Unavailable),
        (too_large, Unavailable),
        (lost, RuntimeError),
        (lambda: {}["bias"], KeyError),
    ],
)
def test_a_failing_engine_fails_its_requests_only(
    sampler: Sampler,
    dcgan: Resolved,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[[], object],
    seen: type[Exception],
) -> None:
    """A lack of memory is Unavailable and a mistake itself, for all who rode in that forward; the next request is served."""
    from models.generator import LoadedGenerator

    async def scenario() -> None:
        await sampler.generate(dcgan, [0])
        with monkeypatch.context() as patch:
            patch.setattr(LoadedGenerator, "generate", lambda *_: failure())
            riders = [sampler.generate(dcgan, list(range(seed, seed + 100))) for seed in range(3)]
            answers = await asyncio.gather(*riders, return_exceptions=True)
            assert [type(answer) for answer in answers] == [seen] * 3
        assert len(await sampler.generate(dcgan, [1])) == 1

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_tag_tells_everything_apart(sampler: Sampler, dcgan: Resolved, mlp: Resolved) -> None:
    """The ETag is the same for the same request and another for any other; nothing is loaded for it."""

    async def scenario() -> None:
        png, webp = FORMATS["png"], FORMATS["webp"]
        asked = [
            (dcgan, png, 1, None, 1.0),
            (dcgan, png, 1, 0, 1.0),
            (dcgan, png, 2, None, 1.0),
            (dcgan, png, 1, None, 0.5),
        ]
        asked += [(dcgan, webp, 1, None, 1.0), (mlp, png, 1, None, 1.0)]
        tags = [await sampler.etag(*each) for each in asked]
        assert len(set(tags)) == len(asked)
        assert tags == [await sampler.etag(*each) for each in asked]
        assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
        assert dcgan.sha256 not in sampler.cache

    asyncio.run(scenario())
