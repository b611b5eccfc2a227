"""How results are told: targets that are met or missed, and what goes into the JSON line."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A number to reach: `value` should be at least, or else at most, `limit`."""

    what: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        return f"{self.what}: {self.value:.3g} ({bound} {self.limit:g}{'' if self.met else ': MISSED'})"


def document(rows: Iterable[Any], targets: Iterable[Target]) -> dict[str, Any]:
    """Of rows (dataclasses or dictionaries) and targets, rounded."""
    plain = [row if isinstance(row, dict) else asdict(row) for row in rows]
    return {
        "rows": [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
            for row in plain
        ],
        "targets": {each.what: {"value": round(each.value, 4), "met": each.met} for each in targets},
    }
