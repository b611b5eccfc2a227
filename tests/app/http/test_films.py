"""Films that are kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.http.films import Films


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
