"""Presets: a data set and nothing else gives a config that trains."""

from dataclasses import replace
from typing import Any

import pytest

from models.config import ConfigError, DataSpec
from models.presets import AUTO, DEFAULT_PRESET, PRESETS, Hardware, choose_preset, resolve
from models.schedules import GammaRamp

DIGITS = DataSpec(examples=1797, height=8, width=8, channels=1, classes=tuple("0123456789"))
UNLABELLED = DIGITS.model_copy(update={"classes": ()})
GPU = Hardware("cuda", 16)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("hardware", [Hardware(), GPU])
@pytest.mark.parametrize("data", [DIGITS, UNLABELLED, DIGITS.model_copy(update={"examples": 3})])
def test_presets_fit_the_data(preset: str, data: DataSpec, hardware: Hardware) -> None:
    """Every preset resolves for labelled, unlabelled and tiny data sets, on a CPU and on a GPU."""
    config = resolve(preset, {}, data, hardware=hardware)
    assert config.network.conditional == bool(data.classes)
    assert config.batch_size <= data.examples
    assert config.budget.examples


def test_vanilla_is_the_articles_own() -> None:
    """Fully connected, minimax, Adam at 2e-4, no average."""
    config = resolve("vanilla", {}, DIGITS)
    assert (config.network.family, config.loss, config.optimizer.generator_lr) == ("mlp", "minimax", 2e-4)
    assert config.ema.half_life == 0


@pytest.mark.parametrize(
    ("preset", "changes", "network", "components"),
    [
        ("fast", {"examples": 60_000, "classes": ()}, {}, 50),
        ("fast", {"examples": 60_000}, {}, 1),
        ("fast", {"examples": 60_000, "classes": ("cat", "dog")}, {}, 25),
        ("fast", {"examples": 60_000}, {"conditional": False}, 50),
        ("quality", {"examples": 6_000, "classes": ()}, {}, 12),
        ("fast", {"examples": 6_000, "classes": ("cat", "dog")}, {}, 6),
        ("fast", {"classes": ()}, {}, 1),
        ("fast", {"examples": 10**6, "height": 64, "width": 64, "channels": 3, "classes": ()}, {}, 1),
        ("few-shot", {"examples": 60_000, "classes": ()}, {}, 1),
        ("fast", {"examples": 60_000}, {"family": "vae"}, 1),
        ("fast", {"examples": 60_000}, {"components": 2}, 2),
    ],
)
def test_many_images_are_divided_into_kinds(preset: str, changes: dict, network: dict, components: int) -> None:
    """About fifty in all, of hundreds of images each: none where classes are many, images few or too large together, or no game is played."""
    data = DIGITS.model_copy(update=changes)
    assert resolve(preset, {"network": network}, data).network.components == components
    assert resolve("quality", {}, data, hardware=GPU).network.components == 1


def test_somebody_who_names_no_preset_gets_one() -> None:
    """Without a name the choice is made for the data, and comes to what naming it gives."""
    assert DEFAULT_PRESET == AUTO
    chosen, _ = choose_preset(DIGITS, Hardware())
    assert resolve(AUTO, {}, DIGITS) == resolve(chosen, {}, DIGITS)


@pytest.mark.parametrize(
    ("data", "hardware", "preset", "because"),
    [
        ({}, Hardware("cpu", 2), "fast", "1,797 images of 8 x 8 with 10 classes, and no GPU"),
        ({"examples": 999}, Hardware("cpu", 2), "few-shot", "so few are learned by heart"),
        ({"examples": 999}, GPU, "few-shot", "so few are learned by heart"),
        ({"classes": ()}, Hardware("cpu", 64), "quality", "with no classes, and 64 CPU cores"),
        ({}, GPU, "quality", "a GPU to train on"),
        ({"height": 1, "width": 1}, Hardware("cpu", 2), "vanilla", "cannot make 1 x 1 images of 1 channel"),
        ({"channels": 2}, Hardware("cpu", 2), "vanilla", "cannot make 8 x 8 images of 2 channels"),
    ],
)
def test_the_choice_goes_by_data_and_hardware(
    data: dict[str, Any], hardware: Hardware, preset: str, because: str
) -> None:
    """Few images, a GPU, many cores, and sizes that the usual networks cannot make each have their preset, and a reason."""
    chosen, reason = choose_preset(DIGITS.model_copy(update=data), hardware)
    assert chosen == preset
    assert because in reason


def test_what_nothing_can_make_is_refused_by_name() -> None:
    """Where no preset fits, the one that would be best says what is in the way."""
    with pytest.raises(ConfigError) as caught:
        resolve(AUTO, {}, DIGITS.model_copy(update={"height": 3000, "width": 1, "channels": 200}))
    assert {pointer for pointer, _ in caught.value.errors} == {"/network/family"}


def test_few_shot_augments_what_the_discriminator_sees() -> None:
    """As far as the discriminator needs it, and mirrored only where the data allow: a letter is none from behind."""
    augment = resolve("few-shot", {}, DIGITS).augment
    assert (augment.kind, augment.probability, augment.flip) == ("ada", None, None)


def test_examples_without_a_label_hide_classes() -> None:
    """Some of the labels are then hidden from the networks, unless somebody says otherwise or they are not conditional."""
    some = DIGITS.model_copy(update={"unlabelled": 7})
    given = [{}, {"class_dropout": 0.3}, {"conditional": False}, {"family": "mlp"}]
    dropouts = [resolve("fast", {"network": network}, some).network.class_dropout for network in given]
    assert dropouts == [0.1, 0.3, 0.0, 0.1]
    assert resolve("fast", {}, DIGITS).network.class_dropout == 0.0


@pytest.mark.parametrize("family", [[], {}, None, 3])
def test_a_family_that_is_no_name_is_refused(family: object) -> None:
    """Whatever JSON it is."""
    with pytest.raises(ConfigError) as caught:
        resolve("fast", {"network": {"family": family}}, DIGITS)
    assert [pointer for pointer, _ in caught.value.errors] == ["/network/family"]


def test_a_renamed_field_takes_the_place_of_the_presets() -> None:
    """The old name of the interval of penalties is an override like its new one."""
    intervals = [resolve("fast", {"penalties": {name: 4}}, DIGITS).penalties.every for name in ("every", "r1_every")]
    assert intervals == [4, 4]


def test_a_family_without_a_discriminator_takes_no_penalties_over() -> None:
    """An adversarial preset can be asked for with a variational family."""
    config = resolve("few-shot", {"network": {"family": "vae"}}, DIGITS)
    assert (config.penalties.r1_gamma, config.augment.kind) == (0.0, "none")


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


def test_every_gamma_grows_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2's weight and both ends of a ramp do so too; its length does not."""
    ramp = {"start": 2.0, "end": 1.0, "over": 5000}
    penalties = {"r1_gamma": ramp, "r2_gamma": 1.0, "every": 1}
    preset = replace(PRESETS["fast"], config=PRESETS["fast"].config | {"penalties": penalties})
    monkeypatch.setitem(PRESETS, "ramped", preset)
    found = resolve("ramped", {}, DIGITS).penalties
    assert found.r1_gamma == GammaRamp(start=2 / 16, end=1 / 16, over=5000)
    assert found.r2_gamma == 1 / 16


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


def test_a_ramp_takes_the_place_of_the_presets_own() -> None:
    """It is one value: what it leaves out has its default, and not the preset's. A part of one is merged."""
    data = DataSpec(examples=60_000, height=28, width=28, channels=1)
    ramp = {"start": 1e-3, "end": 1e-4}
    rates = resolve("fast", {"optimizer": {"generator_lr": ramp, "discriminator_lr": {"hold": 0.1}}}, data).optimizer
    assert rates.generator_lr.model_dump() == ramp | {"over": None, "hold": 0.0}
    assert rates.discriminator_lr.hold == 0.1
    assert rates.discriminator_lr.end == 2e-5
