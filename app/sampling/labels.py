"""Classes as people write them: a name, or else an index in label order."""

from collections.abc import Sequence

from app.errors import FieldError, Invalid
from models.randomness import sample_class, sample_classes

SHOWN = 50  # class names in a message


def of_seeds(classes: Sequence[str], seeds: Sequence[int], wanted: str | None) -> list[int] | None:
    """The class index of each seed: that of `wanted` or, when none is, the one that the seed stands for.

    None for a model without classes. Raises Invalid for a class that it does not have.
    """
    if wanted is not None:
        return [index_of(classes, wanted)] * len(seeds)
    return sample_classes(seeds, len(classes)).tolist() if classes else None


def of_seed(classes: Sequence[str], seed: int, wanted: str | None) -> int | None:
    """`of_seeds` of one."""
    if wanted is not None:
        return index_of(classes, wanted)
    return sample_class(seed, len(classes)) if classes else None


def index_of(classes: Sequence[str], wanted: str | int, *, pointer: str = "#/class") -> int:
    """The index of the class called `wanted`; when no class is called so, `wanted` may be the index itself.

    A name always wins: where classes are called 1, 2 and 3, `1` is the first of them. Raises Invalid, listing what there is.
    """
    text = str(wanted)
    if text in classes:
        return classes.index(text)
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(classes):
        return int(text)
    if not classes:
        detail = "There are no classes here: leave the class out."
    else:
        more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
        detail = f"There is no class {text[:80]!r}: there are {', '.join(classes[:SHOWN])}{more}."
    raise Invalid(detail, errors=[FieldError(pointer, detail)])
