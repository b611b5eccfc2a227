"""What families and losses exist and what they accept, found by folder and file name, without importing torch."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

import models.families
import models.losses
from models.config import ConfigError, DataSpec, NetworkOptions, TrainingConfig
from models.families import FamilySpec


def _find_families() -> dict[str, FamilySpec]:
    folders = sorted(module.name for module in pkgutil.iter_modules(models.families.__path__) if module.ispkg)
    return {name: importlib.import_module(f"models.families.{name}.spec").SPEC for name in folders}


def _find_losses() -> dict[str, str]:
    """Summaries are read from the source, because a loss imports torch."""
    folder = Path(models.losses.__path__[0])
    names = sorted(module.name for module in pkgutil.iter_modules(models.losses.__path__))
    return {name: _first_line_of_docstring(folder / f"{name}.py") for name in names}


def _first_line_of_docstring(source: Path) -> str:
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""


FAMILIES: dict[str, FamilySpec] = _find_families()
LOSSES: dict[str, str] = _find_losses()


def networks(family: str) -> ModuleType:
    """The family's network module, with `Generator` and `Discriminator`. Imports torch."""
    return importlib.import_module(f"models.families.{FAMILIES[family].name}.network")


def losses(name: str) -> ModuleType:
    """The loss's module, with `generator_loss` and `discriminator_loss`. Imports torch."""
    if name not in LOSSES:
        raise KeyError(name)
    return importlib.import_module(f"models.losses.{name}")


def parse_network(value: Any) -> NetworkOptions:
    """Options of the family that `value["family"]` names. Raises ValueError (pydantic's ValidationError is one)."""
    if isinstance(value, NetworkOptions):
        return value
    if not isinstance(value, dict):
        raise ValueError("the network is an object with a family")  # noqa: TRY004 - pydantic turns ValueError into its own
    family = value.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[family].options.model_validate(value)


def parse_config(document: dict[str, Any]) -> TrainingConfig:
    """A config from its JSON form. Raises ConfigError with every fault and where it lies."""
    faults: list[tuple[str, str]] = []
    document = dict(document)
    if "network" in document:
        try:
            parse_network(document["network"])
        except ValueError as error:
            if isinstance(error, ValidationError):
                faults = _faults(error, "/network")
            else:
                faults = [("/network/family", str(error))]
            document["network"] = {"family": next(iter(FAMILIES))}  # stands in, so that the other faults are found too
    try:
        config = TrainingConfig.model_validate(document)
    except ValidationError as error:
        faults += _faults(error, "")
    if faults:
        raise ConfigError(faults)
    return config


def _faults(error: ValidationError, prefix: str) -> list[tuple[str, str]]:
    return [
        (prefix + "".join(f"/{escaped(part)}" for part in fault["loc"]), fault["msg"].removeprefix("Value error, "))
        for fault in error.errors(include_url=False, include_context=False)
    ]


def escaped(part: str | int) -> str:
    """One reference token of a JSON pointer (RFC 6901, section 3)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def check(config: TrainingConfig, data: DataSpec) -> None:
    """Raises ConfigError if this config cannot train on this data."""
    faults: list[tuple[str, str]] = []
    if config.network.conditional and not data.classes:
        faults.append(("/network/conditional", "the data set has no classes to condition on; use false"))
    if config.batch_size > data.examples:
        faults.append(
            ("/batch_size", f"a batch of {config.batch_size} is larger than the data set of {data.examples} examples")
        )
    try:
        FAMILIES[config.network.family].check(config.network, data)
    except ConfigError as error:
        faults += error.errors
    if faults:
        raise ConfigError(faults)
