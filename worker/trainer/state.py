"""All that training changes: what a checkpoint must hold for a run to go on as if nothing had happened."""

import copy
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.adam import Adam
from models.build import build_discriminator, build_generator
from models.components import Components, Division
from models.config import DataSpec, TrainingConfig
from worker.engine import Engine
from worker.trainer.statistics import Statistics


@dataclass
class State:
    """The networks, the average of G, both optimisers, and how far they have come. Randomness has no state.

    `D` is G's opponent, or the encoder of a variational family. `reports` are the evaluations so far, `given_up` says
    where the last one was due that took too long, and `rollbacks` how often training diverged.
    """

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    optimizer_g: Adam
    optimizer_d: Adam
    statistics: Statistics
    probability: Tensor  # float32 [], of each augmentation
    signs: Tensor  # float32 [], the mean sign of D's judgement in this step
    reports: list[dict[str, Any]] = field(default_factory=list)
    given_up: int | None = None  # examples_seen
    rollbacks: int = 0
    examples_seen: int = 0
    examples_total: int | None = None

    @classmethod
    def initial(cls, config: TrainingConfig, data: DataSpec, engine: Engine) -> Self:
        """The state before the first step, which the seed determines."""
        G = engine.place(build_generator(config.network, data, config.seed, engine.device)).train()
        D = engine.place(build_discriminator(config.network, data, config.seed, engine.device)).train()
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        beta1 = config.optimizer.beta1
        return cls(
            G=G,
            D=D,
            G_ema=G_ema,
            optimizer_g=Adam(G, beta1=beta1),
            optimizer_d=Adam(D, beta1=beta1),
            statistics=Statistics(engine.device),
            probability=torch.zeros((), device=engine.device),
            signs=torch.zeros((), device=engine.device),
        )

    @property
    def generator_bytes(self) -> int:
        """What a snapshot takes."""
        return sum(tensor.nbytes for tensor in self.G_ema.state_dict().values())

    def share_out(self, division: Division | None) -> None:
        """Let the generator draw the components of a class as often as the data have them."""
        if division is not None:
            for module in (*self.G.modules(), *self.G_ema.modules()):
                if isinstance(module, Components):
                    module.divide(division.shares)

    def document(self) -> dict[str, Any]:
        """Tensors and plain values that `torch.load(weights_only=True)` takes back."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "statistics": self.statistics.sums,
            "probability": self.probability,
            "reports": self.reports,
            "given_up": self.given_up,
            "rollbacks": self.rollbacks,
            "examples_seen": self.examples_seen,
            "examples_total": self.examples_total,
        }

    def restore(self, document: dict[str, Any]) -> None:
        """Take over what `document` returned. Raises KeyError, ValueError or RuntimeError if it is of other networks.

        What a document of an earlier release lacks stays as it is.
        """
        self.restore_networks(document)
        if (sums := document["statistics"]).shape == self.statistics.sums.shape:
            self.statistics.sums.copy_(sums)
        self.reports = document.get("reports", [])
        self.given_up = document.get("given_up")
        self.rollbacks = document.get("rollbacks", 0)
        self.examples_seen = document["examples_seen"]
        self.examples_total = document["examples_total"]

    def restore_networks(self, document: dict[str, Any]) -> None:
        """Take over the networks, what belongs to them, and nothing of how far they had come. Raises as `restore` does."""
        self.G.load_state_dict(document["G"])
        self.D.load_state_dict(document["D"])
        self.G_ema.load_state_dict(document["G_ema"])
        self.optimizer_g.load_state_dict(document["optimizer_g"])
        self.optimizer_d.load_state_dict(document["optimizer_d"])
        self.probability.copy_(document.get("probability", self.probability))

    def weights_rms(self) -> dict[str, float]:
        """The root mean square of each network's weights; NaN or infinity if one of them is. Waits for the device."""
        return {f"weights_{name}": _rms(network) for name, network in (("g", self.G), ("d", self.D))}


@torch.no_grad()
def _rms(network: nn.Module) -> float:
    weights = list(network.parameters())
    squares = torch.stack([weight.norm().double().square() for weight in weights]).sum()
    return float((squares / sum(weight.numel() for weight in weights)).sqrt())
