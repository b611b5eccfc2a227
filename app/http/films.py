"""Films of progress: to make one takes seconds, and whoever watches a job asks for it again and again."""

from collections.abc import Callable
from threading import BoundedSemaphore, Lock

from app.errors import Busy

KEPT_BYTES = 2**26  # of all films together
RETRY_SECONDS = 3
AT_ONCE = 4  # requests that make a film or wait for one: each holds a thread that all others need too


class Films:
    """Keeps the films that were made last, by ETag, as many as fit into `limit_bytes`. Safe to share between threads.

    One is made at a time, because all its frames lie in memory; whoever waits for the same one then finds it made. More than a few
    may not wait.
    """

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[str, bytes] = {}  # the oldest first
        self._making = Lock()
        self._places = BoundedSemaphore(AT_ONCE)

    def kept(self, etag: str) -> bytes | None:
        """The film with this ETag, if it is kept."""
        return self._kept.get(etag)

    def get(self, etag: str, make: Callable[[], bytes]) -> bytes:
        """The film with this ETag: the one that is kept, or else what `make` gives. Raises Busy, and what `make` raises."""
        if (kept := self.kept(etag)) is not None:
            return kept
        if not self._places.acquire(blocking=False):
            raise Busy(
                "Other films are being made: ask again in a moment.", headers={"Retry-After": str(RETRY_SECONDS)}
            )
        try:
            with self._making:
                return self._kept.get(etag) or self._made(etag, make)
        finally:
            self._places.release()

    def _made(self, etag: str, make: Callable[[], bytes]) -> bytes:
        film = self._kept[etag] = make()
        while sum(map(len, self._kept.values())) > self._limit_bytes:
            del self._kept[next(iter(self._kept))]
        return film
