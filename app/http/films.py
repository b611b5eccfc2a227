"""Films of progress: to make one takes seconds, and whoever watches a job asks for it again and again."""

from collections.abc import Callable
from threading import Lock

KEPT_BYTES = 2**26  # of all films together


class Films:
    """Keeps the films that were made last, by ETag, as many as fit into `limit_bytes`. Safe to share between threads.

    One is made at a time, because all its frames lie in memory; whoever waits for the same one then finds it made.
    """

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[str, bytes] = {}  # the oldest first
        self._making = Lock()

    def get(self, etag: str, make: Callable[[], bytes]) -> bytes:
        """The film with this ETag: the one that is kept, or else what `make` gives. Raises what `make` raises."""
        if (kept := self._kept.get(etag)) is not None:
            return kept
        with self._making:
            if (kept := self._kept.get(etag)) is not None:
                return kept
            film = self._kept[etag] = make()
            while sum(map(len, self._kept.values())) > self._limit_bytes:
                del self._kept[next(iter(self._kept))]
            return film
