"""From the queue to the event loop: encoders that fail, parts out of order, latent vectors beside seeds."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.errors import DeadlineExceeded, Unavailable
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import Encoding, Latents, Sampler, Samples, Seeds
from models.randomness import sample_latents

PNG = FORMATS["png"]
SEEDS = list(range(100))


def describe(row: int, label: int | None) -> str:
    return f"row {row} class {label}"


def failing(error: BaseException) -> Encoding:
    """Of a format whose encoder raises."""

    def write(*_: object) -> list[bytes]:
        raise error

    return Encoding(replace(PNG, write=write), describe)


@pytest.mark.parametrize("n", [1, 2, 100])
@pytest.mark.parametrize(("error", "seen"), [(ValueError("no such colour"), ValueError), (MemoryError(), Unavailable)])
def test_a_failing_encoder_fails_its_own_requests_only(
    sampler: Sampler, dcgan: Resolved, error: Exception, seen: type[Exception], n: int
) -> None:
    """Others that ride in the same forwards have their files, and so has whoever comes next."""

    async def scenario() -> None:
        await sampler.generate(dcgan, [0])
        inputs = Seeds.of(SEEDS[:n])
        fine, bad = Encoding(PNG, describe), failing(error)
        asked = [sampler.gather(dcgan, inputs, encoding) for encoding in (fine, bad, None, fine, bad)]
        answers: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Samples, seen, Samples, Samples, seen]
        assert answers[0].files == answers[3].files
        assert np.array_equal(answers[0].images, answers[2].images)
        assert (await sampler.gather(dcgan, inputs, fine)).files == answers[0].files
        assert sampler.admission.waiting == 0

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_files_come_in_order_though_the_first_is_made_last(sampler: Sampler, dcgan: Resolved) -> None:
    """The encoder of the first rows waits until others are done: nothing is handed over before, and all is whole then."""
    others = threading.Event()
    first = dcgan.label  # what the first row is told apart by: its text

    def write(pictures: np.ndarray, texts: Sequence[str | None]) -> list[bytes]:
        if first in texts:
            assert others.wait(20)
        elif f"{first} 40" in texts:
            others.set()
        return PNG.write(pictures, texts)

    encoding = Encoding(replace(PNG, write=write), lambda row, _: f"{first} {row}" if row else first)

    async def scenario() -> None:
        parts = [part async for part in sampler.stream(dcgan, Seeds.of(SEEDS), encoding)]
        assert len(parts) > 1
        images = np.concatenate([part.images for part in parts])
        files = [file for part in parts for file in part.files or ()]
        assert all(len(part.images) == len(part.files or ()) == len(part.labels or ()) for part in parts)
        assert np.array_equal(images, (await sampler.generate(dcgan, SEEDS)).images)
        texts = [first, *(f"{first} {row}" for row in SEEDS[1:])]
        assert files == PNG.encode_many(images, texts)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_each_row_says_its_own_class(sampler: Sampler, dcgan: Resolved, mlp: Resolved) -> None:
    """Rows of several requests that are encoded together keep their texts apart."""

    async def scenario() -> None:
        def told(name: str) -> Encoding:
            return Encoding(PNG, lambda row, label: f"{name} {row} {label}")

        names = ("a", "b", "c")
        made = await asyncio.gather(*(sampler.gather(dcgan, Seeds.of(SEEDS[:7]), told(name)) for name in names))
        for name, samples in zip(names, made, strict=True):
            texts = [f"{name} {row} {label}" for row, label in enumerate(samples.labels or ())]
            assert samples.files == PNG.encode_many(samples.images, texts)
        gray = await sampler.gather(mlp, Seeds.of([1, 2, 3]), told("d"))
        assert gray.files == PNG.encode_many(gray.images, [f"d {row} None" for row in range(3)])

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize("conditional", [True, False])
def test_latents_and_seeds_in_one_batch_each_get_their_own(
    sampler: Sampler, dcgan: Resolved, mlp: Resolved, *, conditional: bool
) -> None:
    """A seed's own z gives the seed's own pixels, in whatever company both are."""
    model = dcgan if conditional else mlp
    z = sample_latents(SEEDS, model.info["z_dim"])

    async def scenario() -> None:
        base = await sampler.generate(model, SEEDS)
        labels = None if base.labels is None else np.array(base.labels)
        cuts = [slice(0, 1), slice(1, 8), slice(8, 11), slice(11, 75), slice(75, 100)]
        for _ in range(5):
            asked: list[Any] = []
            for cut in cuts:
                asked.append(sampler.gather(model, Latents(z[cut], None if labels is None else labels[cut])))
                asked.append(sampler.generate(model, SEEDS[cut]))
            answers = await asyncio.gather(*asked)
            for cut, rendered, generated in zip(cuts, answers[::2], answers[1::2], strict=True):
                assert np.array_equal(rendered.images, base.images[cut])
                assert np.array_equal(generated.images, base.images[cut])

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_mixture_of_one_class_is_close_to_the_class(sampler: Sampler, dcgan: Resolved) -> None:
    """Float32 [n, n_classes] goes through as labels do; one-hot rows differ from them by a rounding at most."""
    z = sample_latents(SEEDS[:20], dcgan.info["z_dim"])
    labels = np.arange(20) % 3

    async def pixels(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (await sampler.gather(dcgan, Latents(z, labels))).images

    async def scenario() -> None:
        one_hot = np.eye(3, dtype=np.float32)[labels]
        plain, mixed = await asyncio.gather(pixels(z, labels), pixels(z, one_hot))
        assert np.abs(plain.astype(int) - mixed).max() <= 1
        between = np.full((20, 3), 1 / 3, np.float32)
        made = await pixels(z, between)
        assert not np.array_equal(made, mixed)
        alone = [(await pixels(z[[row]], between[[row]]))[0] for row in (0, 7, 19)]
        assert np.array_equal(made[[0, 7, 19]], alone)
        samples = await sampler.gather(dcgan, Latents(z, between), Encoding(PNG, describe))
        assert samples.labels is None
        assert samples.files == PNG.encode_many(made, [describe(row, None) for row in range(20)])

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_deadline_that_passes_frees_the_place(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits behind a slow forward, or for its model: DeadlineExceeded, and the next one is served."""
    from models.generator import LoadedGenerator

    generate = LoadedGenerator.generate
    may_go = threading.Event()

    def slow(self: LoadedGenerator, *inputs: Any) -> np.ndarray:
        may_go.wait(20)
        return generate(self, *inputs)

    async def scenario() -> None:
        await sampler.generate(dcgan, [0])
        sampler.admission._pace = lambda: 0.0  # by which nobody is late beforehand
        with monkeypatch.context() as patch:
            patch.setattr(LoadedGenerator, "generate", slow)
            patient = asyncio.create_task(sampler.generate(dcgan, [1]))
            await asyncio.sleep(0.05)
            with pytest.raises(DeadlineExceeded):
                await sampler.gather(dcgan, Seeds.of(SEEDS), None, 1.0)
            assert sampler.admission.waiting == 1
            may_go.set()
            assert len(await patient) == 1
        assert sampler.admission.waiting == 0
        assert len(await sampler.generate(dcgan, SEEDS)) == 100

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_deadline_that_cannot_be_met_costs_nothing(sampler: Sampler, dcgan: Resolved) -> None:
    """Alone, and with all the time of the machine, so many samples take longer: that is said before the first is made."""

    async def scenario() -> None:
        await sampler.generate(dcgan, [0])
        begun = time.perf_counter()
        with pytest.raises(DeadlineExceeded, match="ask for fewer"):
            await sampler.gather(dcgan, Seeds.of(range(2**40)), None, 60)
        assert time.perf_counter() - begun < 5
        assert len(await sampler.gather(dcgan, Seeds.of(SEEDS), None, 60)) == 100

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_deadline_counts_while_a_model_loads(
    sampler: Sampler, dcgan: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who cannot wait for it is told so, and it is loaded for the next."""
    from app.sampling import engine

    load, may_go = engine.load, threading.Event()

    def slow(*inputs: Any) -> Any:
        may_go.wait(20)
        return load(*inputs)

    monkeypatch.setattr(engine, "load", slow)

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await sampler.gather(dcgan, Seeds.of([0]), None, 0.05)
        assert sampler.admission.waiting == 0
        may_go.set()
        assert len(await sampler.generate(dcgan, [0])) == 1

    asyncio.run(asyncio.wait_for(scenario(), 30))
