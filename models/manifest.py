"""`model.json`, which stands beside `generator.safetensors` and says what it is. Torch-free."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from models.catalog import parse_network
from models.config import DataSpec, NetworkOptions

WEIGHTS = "generator.safetensors"
MANIFEST = "model.json"
ONNX = "generator.onnx"  # made when it is first asked for
STATE = "state.pt"  # what training goes on from, where it was kept


class ModelFileError(Exception):
    """A snapshot that is missing, damaged or not one of ours."""


class DatasetInfo(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: str
    examples: int = Field(ge=1)


class GeneratorInfo(BaseModel):
    """A generator without its weights. `classes` are those that can be asked for: none when it is unconditional.

    Unknown keys are ignored, so that newer files can say more.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    network: Annotated[SerializeAsAny[NetworkOptions], BeforeValidator(parse_network)]
    family: str
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(ge=1)
    classes: tuple[str, ...]
    z_dim: int = Field(ge=1)
    conditional: bool
    examples_seen: int = Field(ge=0)
    config: dict[str, Any]
    dataset: DatasetInfo
    metrics: dict[str, float | None]
    fingerprint: dict[str, Any]
    sha256: str  # of generator.safetensors

    @model_validator(mode="after")
    def _agrees_with_its_network(self) -> Self:
        for part in ("family", "z_dim", "conditional"):
            if getattr(self, part) != getattr(self.network, part):
                raise ValueError(f"{part} is not that of the network")
        if self.conditional and not self.classes:
            raise ValueError("a conditional network has classes")
        return self

    @property
    def data(self) -> DataSpec:
        """The shape of what it learned from, which its networks are built for."""
        return DataSpec(
            examples=self.dataset.examples,
            height=self.height,
            width=self.width,
            channels=self.channels,
            classes=self.classes,
        )


def read_info(snapshot: Path) -> GeneratorInfo:
    """The manifest of a snapshot folder. Raises ModelFileError."""
    try:
        return GeneratorInfo.model_validate(json.loads((snapshot / MANIFEST).read_bytes()))
    except OSError as error:
        raise ModelFileError(f"{snapshot / MANIFEST} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "/".join(map(str, fault["loc"]))
        raise ModelFileError(f"{snapshot / MANIFEST} is not a model's manifest: {where}: {fault['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{snapshot / MANIFEST} is not JSON") from error


def weights_size(snapshot: Path) -> int:
    """Bytes of the weights of a snapshot folder. Raises ModelFileError."""
    try:
        return (snapshot / WEIGHTS).stat().st_size
    except OSError as error:
        raise ModelFileError(f"{snapshot / WEIGHTS} cannot be read: {error.strerror}") from error
