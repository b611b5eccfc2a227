"""How good a generator is, on the wire."""

from typing import Annotated, Any

from pydantic import Field

EXAMPLE = {
    "kid": 0.0123,
    "kid_low": 0.0098,
    "kid_high": 0.0151,
    "kid_floor": 0.0,
    "kid_floor_high": 0.0004,
    "fid": 4.2,
    "fid_floor": 0.6,
    "precision": 0.81,
    "recall": 0.74,
    "density": 0.93,
    "coverage": 0.88,
    "class_coverage": 1.0,
    "class_accuracy": 0.97,
    "memorisation": 0.01,
    "duplicates": 0.0,
    "spread": 0.96,
    "features": {"name": "classifier", "dim": 128},
    "notes": [],
    "seconds": 2.1,
}

Evaluation = Annotated[
    dict[str, Any] | None,
    Field(
        examples=[EXAMPLE],
        description="How samples compare with the data: the lower `kid` the better, down to `kid_floor_high`, which real images reach."
        " What cannot be had is null, and `notes` say why.",
    ),
]
