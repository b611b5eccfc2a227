"""The numbers of a step that change from step to step."""

from dataclasses import dataclass

from models.config import TrainingConfig
from models.schedules import value

GENTLER_RATE = 0.5  # after each rollback: so much of the learning rates
GENTLER_GAMMA = 2.0  # and so many times the penalties


@dataclass(frozen=True)
class Settings:
    """Of one step. `probability` is None where there is no augmentation, or where it finds its own."""

    generator_lr: float
    discriminator_lr: float
    beta2: float
    r1_gamma: float
    r2_gamma: float
    gp_weight: float
    probability: float | None


def settings_at(config: TrainingConfig, examples_seen: int, examples_total: int | None, rollbacks: int) -> Settings:
    """What the config's schedules say after so many examples, gentler for each time that training had to be rolled back."""
    adam, penalties, augment = config.optimizer, config.penalties, config.augment
    rate, gamma = GENTLER_RATE**rollbacks, GENTLER_GAMMA**rollbacks
    probability = augment.probability if augment.probability is not None else 1.0
    adaptive = augment.kind == "none" or (augment.kind == "ada" and augment.probability is None)
    return Settings(
        generator_lr=rate * value(adam.generator_lr, examples_seen, examples_total),
        discriminator_lr=rate * value(adam.discriminator_lr, examples_seen, examples_total),
        beta2=value(adam.beta2, examples_seen, examples_total),
        r1_gamma=gamma * value(penalties.r1_gamma, examples_seen, examples_total),
        r2_gamma=gamma * value(penalties.r2_gamma, examples_seen, examples_total),
        gp_weight=gamma * penalties.gp_weight,
        probability=None if adaptive else value(probability, examples_seen, examples_total),
    )
