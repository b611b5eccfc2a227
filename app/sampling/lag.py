"""How busy the event loop is."""

import asyncio
import time


class Lag:
    """`seconds` is how long one turn of the event loop took, looked at whenever somebody asks for samples."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began: float | None = None

    def look(self) -> None:
        """Measure the turn that begins now, unless one is being measured."""
        if self._began is None:
            self._began = time.monotonic()
            asyncio.get_running_loop().call_soon(self._turned, self._began)

    def _turned(self, began: float) -> None:
        self.seconds = time.monotonic() - began
        self._began = None
