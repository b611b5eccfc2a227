"""Which thread encodes what: quick pictures on the spot, slow ones out of everybody's way."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.formats import FORMATS, Format, upscale
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Seeds
from app.storage import Storage
from models.machine import available_cores
from tests.generators import store_generator

PNG = FORMATS["png"]
SEEDS = list(range(100))


def describe(row: int, label: int | None) -> str:
    return f"row {row} class {label}"


def seen_on(threads: list[str], name: str) -> Format:
    """A format that notes which thread encodes."""
    plain = FORMATS[name]

    def write(pictures: np.ndarray, texts: Sequence[str | None]) -> list[bytes]:
        threads.append(threading.current_thread().name.partition("_")[0])
        return plain.write(pictures, texts)

    return replace(plain, write=write)


@pytest.mark.parametrize(
    ("name", "n", "scale", "thread"),
    [
        ("png", 1, 1, "forward"),
        ("png", 2, 1, "forward"),
        ("raw", 1, 4, "forward"),
        ("png", 1, 8, "encoder"),
        ("raw", 2, 5, "encoder"),
        ("png", 3, 1, "encoder"),
        ("png", 1, 32, "slow-encoder"),
        ("raw", 1, 32, "slow-encoder"),
        ("avif", 1, 1, "slow-encoder"),
        ("avif", 1, 32, "slow-encoder"),
    ],
)
def test_only_what_is_quick_is_encoded_on_the_forward_thread(
    sampler: Sampler, storage: Storage, tmp_path: Path, name: str, n: int, scale: int, thread: str
) -> None:
    """What takes long has threads of its own; wherever it is encoded, the bytes are those of the pixels."""
    if name not in FORMATS:
        pytest.skip(f"no {name} here")
    model = store_generator(storage, tmp_path, "wide", size=32, channels=3)
    threads: list[str] = []
    encoding = Encoding(seen_on(threads, name), describe, scale)
    made = asyncio.run(sampler.gather(model, Seeds.of(SEEDS[:n]), encoding))
    assert set(threads) == {thread}
    enlarged = upscale(made.images, scale)
    assert made.files == FORMATS[name].encode_many(enlarged, [describe(row, None) for row in range(n)])


def test_few_pixels_are_enlarged_at_a_time(sampler: Sampler, dcgan: Resolved) -> None:
    """However many pictures are asked for: as many as make a megabyte, or one that is larger."""
    sizes: list[int] = []

    def write(pictures: np.ndarray, texts: Sequence[str | None]) -> list[bytes]:
        sizes.append(pictures.nbytes)
        return PNG.write(pictures, texts)

    encoding = Encoding(replace(PNG, write=write), describe, 32)
    made = asyncio.run(sampler.gather(dcgan, Seeds.of(SEEDS), encoding))
    assert sum(sizes) == upscale(made.images, 32).nbytes
    assert max(sizes) <= 2**20
    assert made.files == PNG.encode_many(
        upscale(made.images, 32), [describe(row, label) for row, label in enumerate(made.labels or ())]
    )


def test_slow_pictures_hold_up_nobody_and_are_not_made_for_those_who_left(
    sampler: Sampler, storage: Storage, tmp_path: Path, dcgan: Resolved
) -> None:
    """However many wait for their encoders, another model's samples are made; whoever leaves meanwhile is encoded for no more."""
    model = store_generator(storage, tmp_path, "wide", size=32, channels=3)
    may_go, encoded = threading.Event(), 0

    def write(pictures: np.ndarray, texts: Sequence[str | None]) -> list[bytes]:
        nonlocal encoded
        assert may_go.wait(20)
        encoded += len(pictures)
        return PNG.write(pictures, texts)

    async def scenario() -> None:
        slow = Encoding(replace(PNG, write=write), describe, 32)
        large = [asyncio.create_task(sampler.gather(model, Seeds.of([seed]), slow)) for seed in range(60)]
        await asyncio.sleep(0.5)
        for n in (1, 100):
            assert (
                len(await asyncio.wait_for(sampler.gather(dcgan, Seeds.of(SEEDS[:n]), Encoding(PNG, describe)), 10))
                == n
            )
        for task in large[1:]:
            task.cancel()
        await asyncio.wait(large[1:])
        may_go.set()
        assert len(await large[0]) == 1
        await sampler.beside(lambda: None)  # it comes behind what lay there
        assert encoded <= available_cores()

    try:
        asyncio.run(asyncio.wait_for(scenario(), 30))
    finally:
        may_go.set()  # or the encoders would not end
