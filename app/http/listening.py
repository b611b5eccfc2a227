"""Several processes on one port, each with a socket of its own (SO_REUSEPORT), among which Linux divides the connections.

On a socket that all share, as uvicorn has it, whoever is idle takes all that wait: of the connections that a client opens at once
most end up in one process, and stay there.
"""

import socket
from typing import Any, Self

from uvicorn import Config
from uvicorn.supervisors import Multiprocess


def serve(app: str, *, workers: int, **options: Any) -> None:
    """What `uvicorn.run` does with as many workers. Exits when the port is taken."""
    config = Config(app, workers=workers, **options)
    config.bind_socket().close()  # with SO_REUSEPORT alone a second service would be let in beside the first
    with Reservation.of(config) as reserved:
        Multiprocess(config, sockets=[reserved]).run()


class Reservation(socket.socket):
    """Holds a port without listening. Sent to another process, it arrives as a socket of that process's own."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """Raises OSError when the port is taken."""
        return cls.at(socket.AF_INET6 if ":" in config.host else socket.AF_INET, (config.host, config.port))

    @classmethod
    def at(cls, family: socket.AddressFamily, address: tuple[Any, ...]) -> Self:
        """Raises OSError when the port is taken."""
        made = cls(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return self.at, (self.family, self.getsockname())
