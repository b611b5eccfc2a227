"""The numbers of a step follow the config's schedules, and are gentler after each rollback."""

import pytest

from tests.worker.runs import config
from worker.trainer.settings import settings_at

RAMPS = {
    "optimizer": {"generator_lr": {"start": 1e-3, "end": 1e-4}, "discriminator_lr": 2e-3},
    "penalties": {"r1_gamma": {"start": 2.0, "end": 1.0, "over": 100}, "r2_gamma": 0.5},
}


def test_ramps_are_followed() -> None:
    """Over the whole run or over so many examples; plain numbers stay."""
    begin, half, end = (settings_at(config(**RAMPS), seen, 1000, 0) for seen in (0, 500, 1000))
    assert (begin.generator_lr, end.generator_lr) == (1e-3, pytest.approx(1e-4))
    assert half.generator_lr == pytest.approx(5.5e-4)
    assert half.r1_gamma == 1.0
    assert begin.discriminator_lr == end.discriminator_lr == 2e-3


def test_each_rollback_halves_the_rates_and_doubles_the_penalties() -> None:
    """Of both networks, and of both penalties."""
    before, after = (settings_at(config(**RAMPS), 0, 1000, rollbacks) for rollbacks in (0, 2))
    assert after.generator_lr == before.generator_lr / 4
    assert after.discriminator_lr == before.discriminator_lr / 4
    assert after.r1_gamma == before.r1_gamma * 4
    assert after.r2_gamma == before.r2_gamma * 4


@pytest.mark.parametrize(
    ("augment", "probability"),
    [({"kind": "none"}, None), ({"kind": "ada"}, None), ({"kind": "diffaugment"}, 1.0),
     ({"kind": "ada", "probability": {"start": 0.0, "end": 0.5}}, 0.25)],
)  # fmt: skip
def test_augmentation_has_a_probability_or_finds_it(augment: dict, probability: float | None) -> None:
    """None where ada's controller decides; else what the config says, 1 for diffaugment."""
    found = settings_at(config(augment=augment), 500, 1000, 0).probability
    assert found == (probability if probability is None else pytest.approx(probability))
