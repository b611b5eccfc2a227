"""Adam (arXiv:1412.6980, algorithm 1) over one network's parameters, through torch's fused kernel.

torch.optim.Adam would do the same, but its constructor imports the compiler: a second and a half before the first step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """One optimiser for one network. The state is the two moments and the step count of each parameter."""

    def __init__(self, network: nn.Module, *, beta1: float) -> None:
        self._parameters: list[Tensor] = list(network.parameters())
        self._beta1 = beta1
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, *, lr: float, beta2: float) -> None:
        """Move every parameter along its gradient, then forget the gradients."""
        gradients = [parameter.grad for parameter in self._parameters]
        assert all(gradient is not None for gradient in gradients), "every parameter takes part in the loss"
        adam(
            self._parameters,
            [gradient for gradient in gradients if gradient is not None],
            self._first,
            self._second,
            [],
            self._steps,
            fused=True,
            lr=lr,
            beta1=self._beta1,
            beta2=beta2,
            amsgrad=False,
            maximize=False,
            weight_decay=0.0,
            eps=1e-8,
        )
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {"first": self._first, "second": self._second, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError if the state is another network's."""
        for ours, theirs in (
            (self._first, state["first"]),
            (self._second, state["second"]),
            (self._steps, state["steps"]),
        ):
            for mine, its in zip(ours, theirs, strict=True):
                if mine.shape != its.shape:
                    raise ValueError("the optimiser's state has other shapes than the network")
                mine.copy_(its)
