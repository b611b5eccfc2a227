"""What families and losses exist and what they accept, found by folder and file name, without importing torch."""

import ast
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Union

from pydantic import BaseModel, TypeAdapter, ValidationError

import models.families
import models.losses
from models.config import ConfigError, DataSpec, NetworkOptions, TrainingConfig
from models.families import FamilySpec
from models.schedules import TAGS, largest
from models.unknown import FORBIDDEN, unknown

MOST_ROWS = 10_000  # components in all: each has parameters of its own in every layer, and takes a round of clustering


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


@cache
def config_schema() -> dict[str, Any]:
    """The JSON schema of a part of a config, such as a preset's or a job's, each family with options of its own."""
    options: Any = Union[tuple(family.options for family in FAMILIES.values())]  # noqa: UP007 - of as many as there are
    schema, network = TrainingConfig.model_json_schema(), TypeAdapter(options).json_schema()
    sections = schema.pop("$defs") | network.pop("$defs")
    del sections[NetworkOptions.__name__]
    for name, section in {"": schema, **sections}.items():
        if not name.endswith("Ramp"):  # which replaces a whole number
            section.pop("required", None)
    schema["properties"]["network"] = network
    return schema | {"$defs": sections}


def parse_config(document: dict[str, Any]) -> TrainingConfig:
    """A config from its JSON form. Raises ConfigError with every fault and where it lies."""
    faults: list[tuple[str, str]] = []
    document = dict(document)
    if "network" in document:
        try:
            parse_network(document["network"])
        except ValueError as error:
            if isinstance(error, ValidationError):
                faults = _faults(error, "/network", FAMILIES[document["network"]["family"]].options)
            else:
                faults = [("/network/family", str(error))]
            document["network"] = {"family": next(iter(FAMILIES))}  # stands in, so that the other faults are found too
    try:
        config = TrainingConfig.model_validate(document)
    except ValidationError as error:
        faults += _faults(error, "", TrainingConfig)
    if faults:
        raise ConfigError(faults)
    return config


def _faults(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[tuple[str, str]]:
    return [
        (
            prefix + "".join(f"/{escaped(part)}" for part in fault["loc"] if part not in TAGS),
            unknown(model, fault["loc"]) if fault["type"] == FORBIDDEN else fault["msg"].removeprefix("Value error, "),
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]


def escaped(part: str | int) -> str:
    """One reference token of a JSON pointer (RFC 6901, section 3)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def check(config: TrainingConfig, data: DataSpec) -> None:
    """Raises ConfigError if this config cannot train on this data."""
    family = FAMILIES[config.network.family]
    faults = [*_batch_faults(config, data, family), *_game_faults(config, family), *_stopping_faults(config)]
    if config.network.conditional and not data.classes:
        faults.append(("/network/conditional", "the data set has no classes to condition on; use false"))
    if config.network.components > 1 and (rows := config.network.class_rows(data)) > MOST_ROWS:
        detail = (
            f"{config.network.components} components of each class are {rows:,} in all, and {MOST_ROWS:,} are allowed"
        )
        faults.append(("/network/components", detail))
    if config.network.conditional and data.unlabelled and not config.network.class_dropout:
        detail = (
            f"{data.unlabelled} examples have no class, which is for networks that learn without one: use more than 0"
        )
        faults.append(("/network/class_dropout", detail))
    try:
        family.check(config.network, data)
    except ConfigError as error:
        faults += error.errors
    if faults:
        raise ConfigError(faults)


def _batch_faults(config: TrainingConfig, data: DataSpec, family: FamilySpec) -> list[tuple[str, str]]:
    batch, micro = config.batch_size, config.micro_batch
    faults = []
    if batch > data.examples:
        faults.append(("/batch_size", f"a batch of {batch} is larger than the data set of {data.examples} examples"))
    if batch % config.processes:
        detail = f"a batch of {batch} cannot be shared evenly by {config.processes} processes"
        faults.append(("/batch_size", detail))
    if micro is not None and batch % micro:
        faults.append(("/micro_batch", f"a batch of {batch} cannot be taken {micro} at a time; use a divisor of it"))
    elif micro is not None and micro != batch and family.mixes_batch:
        detail = (
            f"{family.name} normalises over the batch, so it has to be taken whole; use null, or a smaller batch_size"
        )
        faults.append(("/micro_batch", detail))
    return faults


def _stopping_faults(config: TrainingConfig) -> list[tuple[str, str]]:
    """An end that could never come."""
    asked = [name for name in ("kid", "on_plateau") if getattr(config.stopping, name)]
    if not asked or config.evaluation.samples > 1:
        return []
    detail = f"stopping.{asked[0]} goes by KID, which takes two samples or more; there are {config.evaluation.samples}"
    return [("/evaluation/samples", detail)]


def _game_faults(config: TrainingConfig, family: FamilySpec) -> list[tuple[str, str]]:
    """What does not go together with the game that is played, or with its loss."""
    penalties = config.penalties
    weights = {name: largest(getattr(penalties, name)) for name in ("r1_gamma", "r2_gamma", "gp_weight")}
    if family.game == "variational":
        detail = f"{family.name} has no discriminator"
        faults = [(f"/penalties/{name}", f"{detail} to penalise; use 0") for name, weight in weights.items() if weight]
        if config.augment.kind != "none":
            faults.append(("/augment/kind", f"{detail} to hide the examples from; use none"))
        if config.network.components > 1:
            faults.append(("/network/components", f"{family.name} finds its latents itself; use 1"))
        return faults
    if config.loss == "wasserstein" and not any(weights.values()):
        return [
            ("/loss", "wasserstein has no lower bound without a gradient penalty; give penalties.gp_weight, such as 10")
        ]
    return []
