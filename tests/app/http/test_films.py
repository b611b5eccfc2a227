"""Films that are kept."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import Busy
from app.http.films import AT_ONCE, Films


class Maker:
    """Makes films of so many bytes and counts them."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return bytes(self.length)


def test_a_film_is_made_once() -> None:
    """The second who asks gets the bytes of the first."""
    films, make = Films(), Maker(5)
    assert films.get("a", make) is films.get("a", make)
    assert make.made == 1


def test_the_oldest_make_room() -> None:
    """No more is kept than fits into the limit, the newest first; what fits into no room is made each time."""
    films, make = Films(limit_bytes=10), Maker(4)
    for etag in ("a", "b", "c"):
        films.get(etag, make)
    for etag in ("c", "b"):
        films.get(etag, make)
    assert make.made == 3
    films.get("a", make)
    assert make.made == 4
    large = Maker(11)
    assert [len(films.get("d", large)) for _ in range(2)] == [11, 11]
    assert large.made == 2


def test_those_who_come_together_share_one() -> None:
    """While one is being made, whoever wants it waits for it instead of making it too."""
    films, come, make = Films(), threading.Barrier(4), Maker(5)

    def ask() -> bytes:
        come.wait(10)
        return films.get("a", make)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
    assert {film.result() for film in asked} == {bytes(5)}
    assert make.made == 1


def test_a_failure_is_not_kept() -> None:
    """What could not be made is tried again for the next."""
    films = Films()

    def fail() -> bytes:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        films.get("a", fail)
    assert films.get("a", Maker(1)) == bytes(1)


def test_more_than_a_few_may_not_wait() -> None:
    """Whoever comes when all places are taken is told when to come again, and films that are kept are still given out."""
    films, begun, go_on = Films(), threading.Event(), threading.Event()
    films.get("kept", Maker(1))

    def make() -> bytes:
        begun.set()
        go_on.wait(10)
        return b"film"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [pool.submit(films.get, str(number), make) for number in range(AT_ONCE)]
        begun.wait(10)
        while films._places._value:
            time.sleep(0.01)
        with pytest.raises(Busy, match="again") as refused:
            films.get("another", make)
        assert films.get("kept", make) == bytes(1)
        go_on.set()
        assert {film.result() for film in waiting} == {b"film"}
    assert int(refused.value.headers["Retry-After"]) > 0
    assert films.get("another", make) == b"film"
