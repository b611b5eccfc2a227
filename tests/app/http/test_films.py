"""Films that are kept, and films that are under way."""

import asyncio
import threading

import pytest

from app.errors import Busy, DeadlineExceeded
from app.http.films import AT_ONCE, Films


class Maker:
    """Makes films of so many bytes and counts them; each takes until `may_go` is set."""

    def __init__(self, length: int = 5, may_go: asyncio.Event | None = None) -> None:
        self.length = length
        self.may_go = may_go
        self.made = self.ended = 0

    async def __call__(self) -> bytes:
        self.made += 1
        try:
            if self.may_go is not None:
                await self.may_go.wait()
            return bytes(self.length)
        finally:
            self.ended += 1


async def turns() -> None:
    """Whatever can go on does."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_film_is_made_once() -> None:
    """The second who asks gets the bytes of the first."""

    async def scenario() -> None:
        films, make = Films(), Maker()
        assert await films.get("a", make) is await films.get("a", make)
        assert make.made == 1

    asyncio.run(scenario())


def test_the_oldest_make_room() -> None:
    """No more is kept than fits into the limit, the newest first; what fits into no room is made each time."""

    async def scenario() -> None:
        films, make = Films(limit_bytes=10), Maker(4)
        for etag in ("a", "b", "c"):
            await films.get(etag, make)
        for etag in ("c", "b"):
            await films.get(etag, make)
        assert make.made == 3
        await films.get("a", make)
        assert make.made == 4
        large = Maker(11)
        assert [len(await films.get("d", large)) for _ in range(2)] == [11, 11]
        assert large.made == 2

    asyncio.run(scenario())


def test_those_who_come_together_share_one() -> None:
    """While one is being made, whoever wants it waits for it, however many; it outlives the one who asked first, but not the last."""

    async def scenario() -> None:
        films, may_go = Films(), asyncio.Event()
        make = Maker(may_go=may_go)
        asked = [asyncio.create_task(films.get("a", make)) for _ in range(3 * AT_ONCE)]
        await turns()
        asked.pop(0).cancel()
        await turns()
        may_go.set()
        assert set(await asyncio.gather(*asked)) == {bytes(5)}
        assert make.made == 1
        left = Maker(may_go=asyncio.Event())
        leaving = [asyncio.create_task(films.get("b", left)) for _ in range(2)]
        await turns()
        leaving[0].cancel()
        await turns()
        assert left.ended == 0
        leaving[1].cancel()
        await turns()
        assert left.ended == 1
        assert await films.get("b", make) == bytes(5)

    asyncio.run(scenario())


def test_a_failure_is_not_kept() -> None:
    """What could not be made is tried again for the next, and at once for those who waited when it came too late for another."""

    async def scenario() -> None:
        films, may_go = Films(), asyncio.Event()

        async def fail() -> bytes:
            raise ConnectionError

        async def late() -> bytes:
            await may_go.wait()
            raise DeadlineExceeded("late")

        with pytest.raises(ConnectionError):
            await films.get("a", fail)
        assert await films.get("a", Maker(1)) == bytes(1)
        make = Maker()
        first = asyncio.create_task(films.get("b", late))
        await turns()
        others = [asyncio.create_task(films.get("b", make)) for _ in range(3)]
        await turns()
        may_go.set()
        assert set(await asyncio.gather(*others)) == {bytes(5)}
        assert make.made == 1
        with pytest.raises(DeadlineExceeded):
            await first

    asyncio.run(scenario())


def test_more_than_a_few_are_not_begun() -> None:
    """Whoever comes when all places are taken is told when to come again, before anything is made; what is kept or under way is given
    out.
    """

    async def scenario() -> None:
        films, may_go = Films(), asyncio.Event()
        await films.get("kept", Maker(1))
        make, another = Maker(may_go=may_go), Maker()
        waiting = [asyncio.create_task(films.get(str(number), make)) for number in [*range(AT_ONCE), 0]]
        await turns()
        with pytest.raises(Busy, match="again") as refused:
            await films.get("another", another)
        assert int(refused.value.headers["Retry-After"]) > 0
        assert another.made == 0
        assert await films.get("kept", make) == bytes(1)
        may_go.set()
        assert set(await asyncio.gather(*waiting)) == {bytes(5)}
        assert make.made == AT_ONCE
        assert await films.get("another", another) == bytes(5)

    asyncio.run(scenario())


def test_one_is_encoded_at_a_time() -> None:
    """Also after the client of the one before has left: its thread cannot be stopped, and keeps its place."""

    async def scenario() -> None:
        films, begun, may_go = Films(), threading.Event(), threading.Event()

        def slow() -> bytes:
            begun.set()
            may_go.wait(10)
            return b"slow"

        left = asyncio.create_task(films.get("a", lambda: films.encode(slow)))
        await asyncio.to_thread(begun.wait, 10)
        left.cancel()
        other = asyncio.create_task(films.get("b", lambda: films.encode(lambda: b"other")))
        await asyncio.wait([other], timeout=0.2)
        assert not other.done()
        may_go.set()
        assert await other == b"other"

    asyncio.run(scenario())
