"""Names that people give: of datasets, models and aliases."""

import re

from app.errors import FieldError, Invalid

ID_PREFIXES = ("ds_", "job_", "ckpt_", "batch_", "key_", "wh_")
PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_NAME = re.compile(PATTERN)


def validate(name: str, pointer: str) -> str:
    """The name itself, when it may be one; `pointer` says where it stood in the request.

    Raises Invalid. A name may not look like an id, because wherever a name may stand, an id may.
    """
    if not _NAME.fullmatch(name):
        detail = "a name has 1 to 100 letters, digits, '.', '_' and '-', and begins with a letter or digit"
    elif name.lower().startswith(ID_PREFIXES):
        detail = f"a name may not begin like an id ({', '.join(ID_PREFIXES)})"
    else:
        return name
    raise Invalid(f"{name[:120]!r} cannot be a name: {detail}.", errors=[FieldError(pointer, detail)])
