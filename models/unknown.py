"""What to say of a name that a document has no place for: which names there are. Torch-free."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel

FORBIDDEN = "extra_forbidden"  # what pydantic calls such a fault


def unknown(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """The detail of a fault at a place in a document of this model, whose last step is the unknown name."""
    for step in place[:-1]:
        field = model.model_fields.get(str(step))
        model = (
            _model_in(field.annotation) if field else None
        ) or model  # other steps are indices, or members of unions
    names = sorted(field.alias or name for name, field in model.model_fields.items())
    return f"unknown here, where there is {', '.join(names)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
