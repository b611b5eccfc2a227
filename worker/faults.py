"""Faults in words that may leave the machine."""

import re

# Of '/an absolute/path' in quotes, and of /one/without: all but the last name.
_FOLDERS = re.compile(r"""(?<=['"])/[^'"\n]*/|(?<![\w./])/(?:[^\s/:'"]+/)+""")


def without_folders(text: str) -> str:
    """The text with only the names of files left of their absolute paths, which nobody outside needs to know."""
    return _FOLDERS.sub("", text)
