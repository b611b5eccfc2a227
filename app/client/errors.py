"""What the client raises."""

from typing import Any


class ClientError(Exception):
    """Base of what the client raises."""


class ConnectionFailed(ClientError):
    """No answer came, after several attempts."""


class TimedOut(ClientError):
    """What was waited for did not happen in time."""


class Damaged(ClientError):
    """What was downloaded is not what the service says it is."""


class APIError(ClientError):
    """The service answered with an error. `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or f"HTTP status {status}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """Stable and meant for programs, such as `not_found`."""
        return str(self.problem.get("code", ""))

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The offending parts of the request: each has a JSON pointer and a detail."""
        return list(self.problem.get("errors") or [])
