"""Tar headers of our own are the library's."""

import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from app import tars


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=25), st.integers(0, 2**45))
@example("9223372036854775807.png", 8**11 - 1)
@example("9223372036854775807.png", 8**11)
@example("x" * 100, 0)
def test_headers_are_those_of_the_library(name: str, size: int) -> None:
    """For any name and size, byte for byte."""
    info = tarfile.TarInfo(name)
    info.size = size
    assert tars.header(name, size) == info.tobuf(tarfile.GNU_FORMAT, "utf-8")
    assert (size + len(tars.padding(size))) % tars.BLOCK == 0
