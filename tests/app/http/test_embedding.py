"""How long an answer to a signed address may be kept."""

import pytest

from app.http.embedding import cache_control


@pytest.mark.parametrize(
    ("unsigned", "expected"),
    [
        ("public, max-age=31536000, immutable", "private, max-age=60"),
        ("private, max-age=31536000, immutable", "private, max-age=60"),
        ("private, max-age=30", "private, max-age=30"),
        ("no-cache", "private, no-cache"),
        ("private, no-cache, max-age=5", "private, no-cache"),
        ("no-store", "private, no-store"),
        ("", "private, no-cache"),
    ],
)
def test_no_cache_outlives_the_signature(unsigned: str, expected: str) -> None:
    """It is private, and kept for no longer than the address is good, and than it would be otherwise."""
    assert cache_control(unsigned, 60) == expected
