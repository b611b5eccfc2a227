"""What error messages keep to themselves."""

import pytest

from worker.faults import without_folders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[Errno 2] No such file: '/srv/data of mine/x.npy'", "[Errno 2] No such file: 'x.npy'"),
        ("OSError: /srv/data/x.npy is gone", "OSError: x.npy is gone"),
        ("/srv/a/x.py:12 and /srv/b/y.py", "x.py:12 and y.py"),
        (
            "ValueError: 3/4 of http://host/a/b and nowhere/x.npy",
            "ValueError: 3/4 of http://host/a/b and nowhere/x.npy",
        ),
    ],
)
def test_only_the_name_of_a_file_is_told(text: str, told: str) -> None:
    """Of an absolute path the last name is left; everything else stays as it is."""
    assert without_folders(text) == told
