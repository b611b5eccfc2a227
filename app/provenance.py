"""What a picture says of itself: which weights made it, and from what. JSON in ASCII; `app.formats` puts it where others look for it.

Enough to make the same picture again: see `app.inspection`.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import Invalid
from app.formats import SOFTWARE, Format
from app.registry import Resolved
from models.config import MAX_SEED

ENGINE_LETTERS = 16  # of the engine's digest
LONGEST_TEXT = 60_000  # characters; a JPEG has 64 KiB for it
MARK = '{"software":"ganvil '  # what every text begins with

LABEL_PATTERN = "^[A-Za-z0-9._-]{1,100}(:[1-9][0-9]{0,17})?$"  # the id of a checkpoint, or a name and its version
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Provenance:
    """Writes the texts of one model version, in one format, by one engine: what is the same for all is prepared once.

    `common` is that part. `engine` is how the engine is called in it.
    """

    def __init__(self, resolved: Resolved, format: Format, engine: str) -> None:  # noqa: A002
        self.engine = engine[:ENGINE_LETTERS]
        document = {
            "software": SOFTWARE,
            "model": resolved.label,
            "sha256": resolved.sha256,
            "dataset": resolved.info.get("dataset", {}).get("sha256"),
            "engine": self.engine,
        }
        if format.quality is not None:
            document["quality"] = format.quality
        self.common = json.dumps(document, separators=(",", ":"))[:-1]
        self._tag = hashlib.sha256(json.dumps([self.common, format.name, format.encoder, engine]).encode())

    def etag(self, *request: object) -> str:
        """A strong entity tag (quoted) of what `request` gives (seed, class, truncation, ..., as JSON values)."""
        tag = self._tag.copy()
        tag.update(json.dumps(request).encode())
        return f'"{tag.hexdigest()[:40]}"'

    def of(self, seed: int, class_name: str | None, truncation: float = 1.0, *, scale: int = 1) -> str:
        """One sample, by its seed; each pixel repeated `scale` times."""
        return f'{self._made(class_name, truncation, scale)},"seed":{seed}}}'

    def of_z(self, z: NDArray[np.float32], class_name: str | None, truncation: float = 1.0, *, scale: int = 1) -> str:
        """One sample of a caller's own z: the SHA-256 of its bytes, as float32 in little-endian order."""
        digest = hashlib.sha256(np.ascontiguousarray(z, "<f4").tobytes()).hexdigest()
        return f'{self._made(class_name, truncation, scale)},"z":"{digest}"}}'

    def of_grid(
        self,
        seeds: str,
        columns: int,
        classes: str | Sequence[int] | None,
        truncation: float = 1.0,
        *,
        scale: int = 1,
        labels: bool = False,
    ) -> str:
        """Many in one picture: seeds as text (`app.sampling.ranges` writes it), and one class's name, an index for each, or each seed's own.

        Raises Invalid where that is too much.
        """
        name = classes if isinstance(classes, str) else None
        each = (
            "" if classes is None or name is not None else f',"classes":{json.dumps([*classes], separators=(",", ":"))}'
        )
        captions = ',"labels":true' if labels else ""
        text = (
            f'{self._made(name, truncation, scale)}{each},"seeds":{json.dumps(seeds)},"columns":{columns}{captions}}}'
        )
        if len(text) > LONGEST_TEXT:
            detail = (
                f"What a picture says of its seeds would have {len(text)} characters, and {LONGEST_TEXT} are the most"
            )
            raise Invalid(f"{detail}: ask for seeds in a row, or for fewer.")
        return text

    def _made(self, class_name: str | None, truncation: float, scale: int) -> str:
        enlarged = "" if scale == 1 else f',"scale":{scale}'
        return f'{self.common},"truncation":{truncation!r},"class":{_json(class_name)}{enlarged}'


@lru_cache(4096)
def _json(text: str | None) -> str:
    return json.dumps(text)


class Statement(BaseModel):
    """What a picture said of itself. Of untrusted origin: well-formed, and no more than that."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)

    software: str = Field(max_length=100, description="What wrote it.")
    model: str = Field(pattern=LABEL_PATTERN, description="The lasting name of what made it, such as `digits:3`.")
    sha256: Sha256 = Field(description="Of the weights.")
    dataset: Sha256 | None = Field(None, description="The SHA-256 of the data set that was learned from.")
    engine: str | None = Field(None, max_length=64, description="What decided the bits: device, threads, versions.")
    quality: int | None = Field(None, ge=1, le=100, description="Of a format that loses.")
    truncation: float = Field(gt=0, le=1)
    class_: str | None = Field(None, max_length=200, alias="class", description="Its name.")
    classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, max_length=10_000, description="Of a grid: an index for each sample."
    )
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Of one sample.")
    z: Sha256 | None = Field(None, description="The SHA-256 of a caller's own z.")
    seeds: str | None = Field(None, max_length=LONGEST_TEXT, description="Of a grid.")
    columns: int | None = Field(None, ge=1, le=1024, description="Of a grid.")
    scale: int = Field(1, ge=1, le=1024, description="How many times each pixel was repeated.")
    labels: bool = Field(False, description="Whether class and seed stand under each tile.")

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if sum(each is not None for each in (self.seed, self.z, self.seeds)) != 1:
            raise ValueError("one of seed, z and seeds tells where a picture comes from")
        if (self.seeds is None) != (self.columns is None):
            raise ValueError("a grid has seeds and columns")
        return self


def parse(text: str) -> Statement:
    """The statement that a text of ours makes. Raises Invalid for one that was changed into something else."""
    if len(text) > LONGEST_TEXT:
        raise Invalid(f"What this picture says of itself is longer than {LONGEST_TEXT} characters: it was changed.")
    try:
        return Statement.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        detail = (
            f"What this picture says of itself cannot be read ({where[:100]}: {first['msg'][:200]}): it was changed."
        )
        raise Invalid(detail) from error
