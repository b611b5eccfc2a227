"""The catalog and the config: what can be asked for, and what a wrong answer says."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import catalog
from models.catalog import FAMILIES, LOSSES
from models.config import ConfigError, DataSpec, TrainingConfig
from models.families.layouts import MAX_ASPECT, MAX_BASE, layout, nearest_sizes

DIGITS = DataSpec(examples=1797, height=8, width=8, channels=1, classes=tuple("0123456789"))
DOCUMENT = {"network": {"family": "dcgan"}, "loss": "non_saturating", "budget": {"examples": 1000}}


def pointers(error: ConfigError) -> list[str]:
    return [pointer for pointer, _ in error.errors]


def test_what_describes_networks_runs_without_torch() -> None:
    """Config, catalog, presets, manifest and randomness leave torch out of a process."""
    program = (
        "import sys, models.catalog, models.presets, models.randomness, models.manifest, models.config;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_families_and_losses_are_found() -> None:
    """Each folder is a family under its own name, each file a loss, and each has a summary."""
    assert {"dcgan", "mlp"} <= FAMILIES.keys()
    assert {"minimax", "non_saturating"} <= LOSSES.keys()
    assert all(name == spec.name and spec.summary for name, spec in FAMILIES.items())
    assert all(LOSSES.values())


@pytest.mark.parametrize("family", list(FAMILIES))
def test_options_survive_json(family: str) -> None:
    """A config comes back from its JSON form with the family's own options."""
    config = catalog.parse_config(DOCUMENT | {"network": {"family": family}})
    assert isinstance(config.network, FAMILIES[family].options)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"network": {"family": "alexnet"}}, "/network/family"),
        ({"network": {"family": "dcgan", "width": 1}}, "/network/width"),
        ({"network": {"family": "mlp", "width": 64}}, "/network/width"),
        ({"network": {}}, "/network/family"),
        ({"network": "dcgan"}, "/network/family"),
        ({"loss": "hinge2"}, "/loss"),
        ({"batch_size": 0}, "/batch_size"),
        ({"batch_size": "many"}, "/batch_size"),
        ({"seed": -1}, "/seed"),
        ({"seed": 2**63}, "/seed"),
        ({"budget": {}}, "/budget"),
        ({"budget": {"examples": 1, "seconds": 1}}, "/budget"),
        ({"budget": {"examples": 0}}, "/budget/examples"),
        ({"optimizer": {"beta1": 1.0}}, "/optimizer/beta1"),
        ({"optimizer": {"generator_lr": float("nan")}}, "/optimizer/generator_lr"),
        ({"surprise": 1}, "/surprise"),
        ({"ramp": 1}, "/ramp"),
        ({"ema": {"ramp": 0}}, "/ema/ramp"),
        ({"optimizer": {"beta2": {"start": 0.9, "end": 0.99, "number": 1}}}, "/optimizer/beta2/number"),
        ({"penalties": {"every": 2, "r1_every": 3}}, "/penalties"),
    ],
)
def test_faults_are_named(change: dict, pointer: str) -> None:
    """A wrong value is a ConfigError with the pointer to it."""
    with pytest.raises(ConfigError) as caught:
        catalog.parse_config(DOCUMENT | change)
    assert pointers(caught.value) == [pointer]


def test_every_fault_is_found_at_once() -> None:
    """A fault in the network does not hide the others."""
    with pytest.raises(ConfigError) as caught:
        catalog.parse_config(DOCUMENT | {"network": {"family": "dcgan", "z_dim": 0}, "loss": "x", "batch_size": 0})
    assert pointers(caught.value) == ["/network/z_dim", "/loss", "/batch_size"]


def test_batch_may_not_exceed_the_data() -> None:
    """A batch larger than the data set is refused."""
    config = catalog.parse_config(DOCUMENT | {"batch_size": 2000})
    with pytest.raises(ConfigError) as caught:
        catalog.check(config, DIGITS)
    assert pointers(caught.value) == ["/batch_size"]


def test_processes_share_a_batch_evenly() -> None:
    """A batch that cannot be shared by so many is refused before any of them starts."""
    config = catalog.parse_config(DOCUMENT | {"batch_size": 64, "processes": 7})
    with pytest.raises(ConfigError) as caught:
        catalog.check(config, DIGITS)
    assert pointers(caught.value) == ["/batch_size"]


def test_examples_without_a_class_need_networks_that_learn_without_one() -> None:
    """Their table of classes has no row for them otherwise."""
    with pytest.raises(ConfigError) as caught:
        catalog.check(catalog.parse_config(DOCUMENT), DIGITS.model_copy(update={"unlabelled": 3}))
    assert pointers(caught.value) == ["/network/class_dropout"]


@pytest.mark.parametrize("policy", [[], ["color"] * 4])
def test_a_policy_has_parts_and_not_too_many(policy: list[str]) -> None:
    """None would be no augmentation, and each part keeps a copy of every image."""
    with pytest.raises(ConfigError) as caught:
        catalog.parse_config(DOCUMENT | {"augment": {"kind": "diffaugment", "policy": policy}})
    assert pointers(caught.value) == ["/augment/policy"]


def test_conditioning_needs_classes() -> None:
    """Conditioning on labels that do not exist is refused."""
    with pytest.raises(ConfigError) as caught:
        catalog.check(catalog.parse_config(DOCUMENT), DIGITS.model_copy(update={"classes": ()}))
    assert pointers(caught.value) == ["/network/conditional"]


MLP = {"network": {"family": "mlp"}}
VAE = {"network": {"family": "vae"}}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (MLP | {"micro_batch": 24}, "/micro_batch"),
        (MLP | {"micro_batch": 128}, "/micro_batch"),
        ({"micro_batch": 16}, "/micro_batch"),
        (VAE | {"penalties": {"r1_gamma": {"start": 1.0, "end": 0.0}}}, "/penalties/r1_gamma"),
        (VAE | {"penalties": {"gp_weight": 10.0}}, "/penalties/gp_weight"),
        (VAE | {"augment": {"kind": "diffaugment"}}, "/augment/kind"),
        ({"loss": "wasserstein"}, "/loss"),
        ({"evaluation": {"samples": 1}, "stopping": {"kid": 0.1}}, "/evaluation/samples"),
        ({"evaluation": {"samples": 0}, "stopping": {"on_plateau": True}}, "/evaluation/samples"),
    ],
)
def test_what_cannot_go_together_is_refused(change: dict, pointer: str) -> None:
    """A batch in parts that do not add up, or that a family mixes; penalties without a discriminator; a loss without a bound; an
    end that never comes.
    """
    config = catalog.parse_config(DOCUMENT | {"batch_size": 64} | change)
    with pytest.raises(ConfigError) as caught:
        catalog.check(config, DIGITS)
    assert pointers(caught.value) == [pointer]


@pytest.mark.parametrize(
    "change",
    [
        MLP | {"micro_batch": 16},
        {"micro_batch": 64},
        VAE | {"loss": "wasserstein"},
        {"loss": "wasserstein", "penalties": {"gp_weight": 10.0}},
    ],
)
def test_what_goes_together_is_taken(change: dict) -> None:
    """Parts that add up where nothing is mixed; the whole batch where it is; a loss with its bound, or that nobody plays by."""
    catalog.check(catalog.parse_config(DOCUMENT | {"batch_size": 64} | change), DIGITS)


@pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 36, 48, 64, 96, 128, 256, 512])
def test_common_sizes_can_be_made(size: int) -> None:
    """The sizes that people have are fine."""
    assert layout(size, size)


def test_depth_is_what_the_layout_is_after() -> None:
    """28 pixels get a 7 x 7 base and still three stages of the discriminator; 32 and 64 come down to 4."""
    assert layout(28, 28).halvings == 3
    assert (layout(28, 28).base_height, layout(32, 32).base_height, layout(64, 64).base_height) == (7, 4, 4)
    assert layout(8, 8).halvings == 2
    assert (layout(32, 64).base_height, layout(32, 64).base_width) == (4, 8)


@given(st.integers(1, 600), st.integers(1, 600))
def test_a_layout_multiplies_back(height: int, width: int) -> None:
    """Base times two to the doublings is the image, and the discriminator never ends below 2 pixels."""
    plan = layout(height, width)
    if plan is None:
        return
    assert (plan.base_height << plan.doublings, plan.base_width << plan.doublings) == (height, width)
    assert 2 <= min(plan.base_height, plan.base_width) <= MAX_BASE
    assert max(height, width) <= MAX_ASPECT * min(height, width)
    assert plan.halvings >= plan.doublings
    assert min(height, width) >> plan.halvings >= 2


@given(st.integers(1, 600), st.integers(1, 600))
def test_sizes_that_are_suggested_work(height: int, width: int) -> None:
    """Every size that a refusal offers can be made."""
    assert all(layout(*size) for size in nearest_sizes(height, width))


def test_refusal_says_which_sizes_would_work() -> None:
    """A size that cannot be made names the nearest that can."""
    config = catalog.parse_config(DOCUMENT)
    with pytest.raises(ConfigError) as caught:
        catalog.check(config, DIGITS.model_copy(update={"height": 100, "width": 100}))
    ((pointer, detail),) = caught.value.errors
    assert pointer == "/network/family"
    assert "96 x 96 or 112 x 112" in detail


@pytest.mark.parametrize(
    ("family", "change"),
    [("dcgan", {"channels": 2}), ("dcgan", {"height": 11}), ("mlp", {"height": 512, "width": 512})],
)
def test_families_refuse_what_they_cannot_make(family: str, change: dict) -> None:
    """A family's own limits are ConfigErrors that point at it."""
    config = catalog.parse_config(DOCUMENT | {"network": {"family": family}})
    with pytest.raises(ConfigError) as caught:
        catalog.check(config, DIGITS.model_copy(update=change))
    assert pointers(caught.value) == ["/network/family"]
