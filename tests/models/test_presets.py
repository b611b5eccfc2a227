"""Presets: a data set and nothing else gives a config that trains."""

from typing import Any

import pytest

from models.config import ConfigError, DataSpec
from models.presets import DEFAULT_PRESET, PRESETS, resolve

DIGITS = DataSpec(examples=1797, height=8, width=8, channels=1, classes=tuple("0123456789"))
UNLABELLED = DIGITS.model_copy(update={"classes": ()})


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("data", [DIGITS, UNLABELLED, DIGITS.model_copy(update={"examples": 3})])
def test_presets_fit_the_data(preset: str, data: DataSpec) -> None:
    """Every preset resolves for labelled, unlabelled and tiny data sets."""
    config = resolve(preset, {}, data)
    assert config.network.conditional == bool(data.classes)
    assert config.batch_size <= data.examples
    assert config.budget.examples


def test_vanilla_is_the_articles_own() -> None:
    """Fully connected, minimax, Adam at 2e-4, no average."""
    config = resolve("vanilla", {}, DIGITS)
    assert (config.network.family, config.loss, config.optimizer.generator_lr) == ("mlp", "minimax", 2e-4)
    assert config.ema.half_life == 0


def test_somebody_who_names_no_preset_gets_one() -> None:
    """The choice is one of the presets."""
    assert DEFAULT_PRESET in PRESETS


def test_overrides_win_key_by_key() -> None:
    """What is overridden changes, what stands beside it stays."""
    config = resolve("fast", {"optimizer": {"generator_lr": 5e-4}, "network": {"width": 8}}, DIGITS)
    assert (config.optimizer.generator_lr, config.optimizer.discriminator_lr) == (5e-4, 1e-3)
    assert (config.network.width, config.network.z_dim) == (8, 16)


def test_few_examples_get_a_small_network() -> None:
    """Below 5,000 examples `fast` takes half the width; another family does not inherit it, and `vanilla` stays what it is."""
    many = DIGITS.model_copy(update={"examples": 5_000})
    assert [resolve("fast", {}, data).network.width for data in (DIGITS, many)] == [16, 32]
    assert [resolve("fast", {}, data).network.z_dim for data in (DIGITS, many)] == [16, 64]
    assert (
        resolve("fast", {"network": {"family": "mlp"}}, DIGITS).network
        == resolve("vanilla", {"network": {"z_dim": 64}}, DIGITS).network
    )
    assert resolve("vanilla", {}, DIGITS).network == resolve("vanilla", {}, many).network


def test_the_penalty_grows_with_the_image() -> None:
    """R1's weight is proportional to the number of pixels, unless somebody sets it."""
    gammas = [resolve("fast", {}, DIGITS.model_copy(update={"height": s, "width": s})).penalties for s in (8, 32, 64)]
    assert [penalties.r1_gamma for penalties in gammas] == [1 / 16, 1, 4]
    assert resolve("fast", {"penalties": {"r1_gamma": 0.5}}, DIGITS).penalties.r1_gamma == 0.5


def test_another_family_does_not_inherit_the_presets_options() -> None:
    """Asking `fast` for an mlp gives the mlp's own defaults."""
    assert resolve("fast", {"network": {"family": "mlp"}}, DIGITS).network.family == "mlp"


def test_budget_and_seed_stand_beside_the_config() -> None:
    """Both may be given on their own, and a budget replaces the preset's whole."""
    config = resolve("fast", {}, DIGITS, budget={"seconds": 5}, seed=7)
    assert (config.budget.seconds, config.budget.examples, config.seed) == (5, None, 7)
    assert resolve("fast", {"budget": {"epochs": 2}}, DIGITS).budget.epochs == 2


@pytest.mark.parametrize(
    ("preset", "overrides", "data", "pointer"),
    [
        ("slow", {}, DIGITS, "/preset"),
        ("fast", {"network": {"conditional": True}}, UNLABELLED, "/network/conditional"),
        ("fast", {"batch_size": 5000}, DIGITS, "/batch_size"),
        ("fast", {"network": 3}, DIGITS, "/network/family"),
        ("fast", {"penalties": {"r1_gamma": -1}}, DIGITS, "/penalties/r1_gamma"),
        ("fast", {"optimizer": None}, DIGITS, "/optimizer"),
    ],
)
def test_faults_are_named(preset: str, overrides: dict, data: DataSpec, pointer: str) -> None:
    """Wrong in itself or wrong for this data: a ConfigError with the pointer."""
    with pytest.raises(ConfigError) as caught:
        resolve(preset, overrides, data)
    assert [where for where, _ in caught.value.errors] == [pointer]


@pytest.mark.parametrize(("name", "value"), [("budget", {"epochs": 1}), ("seed", 7)])
def test_what_is_given_twice_is_refused(name: str, value: Any) -> None:
    """Beside the config or in it, not both."""
    with pytest.raises(ConfigError, match="twice") as caught:
        resolve("fast", {name: value}, DIGITS, **{name: value})
    assert [pointer for pointer, _ in caught.value.errors] == [f"/{name}"]
