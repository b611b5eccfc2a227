"""All that training changes: what a checkpoint must hold for a run to go on as if nothing had happened."""

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.adam import Adam
from models.build import build_discriminator, build_generator
from models.config import DataSpec, TrainingConfig
from worker.trainer.engine import Engine
from worker.trainer.statistics import Statistics


@dataclass
class State:
    """The networks, the average of G, both optimisers, and how far they have come. Randomness has no state."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    optimizer_g: Adam
    optimizer_d: Adam
    statistics: Statistics
    examples_seen: int = 0
    examples_total: int | None = None

    @classmethod
    def initial(cls, config: TrainingConfig, data: DataSpec, engine: Engine) -> Self:
        """The state before the first step, which the seed determines."""
        G = engine.place(build_generator(config.network, data, config.seed, engine.device)).train()
        D = engine.place(build_discriminator(config.network, data, config.seed, engine.device)).train()
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        adam = config.optimizer
        return cls(
            G=G,
            D=D,
            G_ema=G_ema,
            optimizer_g=Adam(G, lr=adam.generator_lr, beta1=adam.beta1, beta2=adam.beta2),
            optimizer_d=Adam(D, lr=adam.discriminator_lr, beta1=adam.beta1, beta2=adam.beta2),
            statistics=Statistics(engine.device),
        )

    def document(self) -> dict[str, Any]:
        """Tensors and plain values that `torch.load(weights_only=True)` takes back."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "statistics": self.statistics.sums,
            "examples_seen": self.examples_seen,
            "examples_total": self.examples_total,
        }

    def restore(self, document: dict[str, Any]) -> None:
        """Take over what `document` returned. Raises KeyError, ValueError or RuntimeError if it is of other networks."""
        self.G.load_state_dict(document["G"])
        self.D.load_state_dict(document["D"])
        self.G_ema.load_state_dict(document["G_ema"])
        self.optimizer_g.load_state_dict(document["optimizer_g"])
        self.optimizer_d.load_state_dict(document["optimizer_d"])
        self.statistics.sums.copy_(document["statistics"])
        self.examples_seen = document["examples_seen"]
        self.examples_total = document["examples_total"]

    def is_finite(self) -> bool:
        """Whether the last steps and the weights that they left are free of NaN and infinity. Waits for the device."""
        weights: list[Tensor] = [*self.G.parameters(), *self.D.parameters()]
        norms = torch.stack([weight.detach().norm() for weight in weights])
        return bool(norms.isfinite().all() & self.statistics.sums.isfinite().all())
