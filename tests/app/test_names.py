"""What may be a name."""

import pytest

from app.errors import Invalid
from app.names import ID_PREFIXES, validate


@pytest.mark.parametrize("name", ["a", "7", "Cats-and_dogs.v2", "job", "jobs_1", "x" * 100])
def test_good_names(name: str) -> None:
    """Letters, digits, dots, dashes and underscores, up to a hundred, are a name."""
    assert validate(name, "#/name") == name


@pytest.mark.parametrize("name", ["", " ", "-a", ".a", "a b", "a/b", "a:1", "a@b", "é", "a\n", "x" * 101])
def test_bad_names(name: str) -> None:
    """Anything else is refused, and the error points to the field."""
    with pytest.raises(Invalid) as refused:
        validate(name, "#/name")
    assert [error.pointer for error in refused.value.errors] == ["#/name"]


@pytest.mark.parametrize("prefix", ID_PREFIXES)
def test_names_do_not_look_like_ids(prefix: str) -> None:
    """What begins like an id is no name, in capitals neither."""
    for name in (f"{prefix}x", f"{prefix.upper()}1"):
        with pytest.raises(Invalid, match="id"):
            validate(name, "#/model")
