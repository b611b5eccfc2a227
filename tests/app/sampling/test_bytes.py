"""Samples that are made and not yet sent: the sampler bounds their bytes."""

import asyncio
from contextlib import closing

import pytest

from app.errors import Busy
from app.formats import FORMATS
from app.registry import Resolved
from app.sampling import Encoding, Sampler, Seeds, Sent
from app.settings import Settings
from app.storage import Storage
from tests.servers import wait_until


def test_large_answers_are_bounded_in_bytes(settings: Settings, storage: Storage, dcgan: Resolved) -> None:
    """What is made and not taken keeps other large answers away and no small ones; each part that is taken makes room."""
    large = Encoding(FORMATS["raw"], lambda *_: None, 32)  # 196,608 bytes a sample
    small = settings.model_copy(update={"sampler_queue_bytes": 200 * 196_608})

    async def scenario(sampler: Sampler) -> None:
        stream = sampler.stream(dcgan, Seeds.of(range(200)), large)
        first = await anext(stream)
        await asyncio.to_thread(wait_until, lambda: sampler.admission.waiting == 0, seconds=20)
        with pytest.raises(Busy, match="bytes") as caught:
            await sampler.gather(dcgan, Seeds.of([1, 2]), large)
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert len(await sampler.generate(dcgan, list(range(600)))) == 600
        await anext(stream)
        assert sampler.admission.held_bytes == (200 - len(first)) * 196_608
        assert len(await sampler.gather(dcgan, Seeds.of([1, 2]), large)) == 2
        await stream.aclose()
        assert sampler.admission.held_bytes == 0

    with closing(Sampler(small, storage)) as sampler:
        asyncio.run(asyncio.wait_for(scenario(sampler), 30))


def test_what_is_gathered_is_held_until_it_was_sent(sampler: Sampler, dcgan: Resolved) -> None:
    """Large answers, also those that are enlarged only afterwards and such as come to nothing; nobody waits for them meanwhile."""
    info = dcgan.info
    enlarged = 32**2 * info["height"] * info["width"] * info["channels"]

    async def scenario() -> None:
        with Sent() as sent:
            await sampler.gather(dcgan, Seeds.of([1]), sent=sent)
            assert sampler.admission.held_bytes == 0  # it is small
            await sampler.gather(dcgan, Seeds.of([1, 2, 3]), each_bytes=enlarged, sent=sent)
            assert sampler.admission.held_bytes == 3 * enlarged
            asked = asyncio.create_task(sampler.gather(dcgan, Seeds.of(range(100_000)), sent=sent))
            await asyncio.sleep(0.05)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert sampler.admission.waiting == 0
        assert sampler.admission.held_bytes == 0

    asyncio.run(asyncio.wait_for(scenario(), 30))
