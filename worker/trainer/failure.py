"""Runs that cannot go on."""


class TrainingFailed(Exception):
    """`code` is for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, so that it can be pickled
        self.code = code
        self.message = message


class Diverged(Exception):
    """Training blew up since the last tick; `reason` says what was seen, as a clause, and `figures` holds the numbers."""

    def __init__(self, reason: str, figures: dict[str, float | None]) -> None:
        super().__init__(reason, figures)
        self.reason = reason
        self.figures = figures
