"""How much one worker process does at once, and on which GPU."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

Environment = Mapping[str, str]


class Slots:
    """A bounded number of places; each carries the environment that the children run in it are given.

    `ring` is called when a place is given back at which somebody had been turned away.
    """

    def __init__(self, places: list[Environment], ring: Callable[[], None]) -> None:
        self.total = len(places)
        self._free = list(places)
        self._ring = ring
        self._turned_away = False
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        return self.total - len(self._free)

    def work(self, take_one: Callable[[Environment], bool]) -> None:
        """In a free place, `take_one(environment)` until it finds nothing more to do. Returns at once when none is free.

        Whoever is turned away may have come for work that appeared just after a busy place saw none, or that it will not come
        to because it failed. So the bell is rung again when such a place is given back: no ring is wasted.
        """
        place = self._take()
        if place is None:
            return
        try:
            while take_one(place):
                pass
        finally:
            if self._give_back(place):
                self._ring()

    def _take(self) -> Environment | None:
        with self._lock:
            if self._free:
                return self._free.pop(0)
            self._turned_away = True
            return None

    def _give_back(self, place: Environment) -> bool:
        """Whether somebody was turned away meanwhile."""
        with self._lock:
            self._free.append(place)
            turned_away, self._turned_away = self._turned_away, False
            return turned_away


def training_places(slots: int, gpus: list[str]) -> list[Environment]:
    """One place a slot. Several GPUs are shared out to the slots, round and round when there are more slots than GPUs."""
    if len(gpus) < 2:
        return [{} for _ in range(slots)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[index % len(gpus) :: slots])} for index in range(slots)]


def find_gpus(chosen: str | None, devices: Path = Path("/dev")) -> list[str]:
    """The NVIDIA GPUs as CUDA names them, found without loading torch: those `chosen` by CUDA_VISIBLE_DEVICES, else all."""
    if chosen is not None:
        return [name for name in chosen.split(",") if name not in {"", "-1"}]
    return [str(index) for index, _ in enumerate(sorted(devices.glob("nvidia[0-9]*")))]
