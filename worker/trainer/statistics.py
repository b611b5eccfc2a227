"""Sums that stay on the device until a tick asks for their means, so that no step waits for the host."""

import torch
from torch import Tensor

NAMES = (
    *("loss_d", "loss_g", "logits_real", "logits_fake", "sign", "r1", "r2", "gradient_penalty", "augment_probability"),
    *("reconstruction", "kl"),
)


class Statistics:
    """Means since the last tick. `sums` is what a checkpoint keeps of it: the sum of each number, and of its weights."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, len(NAMES), dtype=torch.float64, device=device)
        self._nothing = torch.zeros((), dtype=torch.float64, device=device)
        self._given: dict[tuple[str, ...], Tensor] = {}  # for each set of names, ones where they stand

    @torch.no_grad()
    def add(self, weight: float, **values: Tensor) -> None:
        """Numbers (scalars) that count with this weight, such as a part's share of its batch."""
        names = tuple(values)
        if names not in self._given:
            assert set(names) <= set(NAMES)
            self._given[names] = torch.tensor([float(name in names) for name in NAMES], device=self.sums.device)
        numbers = torch.stack([values[name].detach().double() if name in values else self._nothing for name in NAMES])
        self.sums += weight * torch.stack([numbers, self._given[names]])

    def means(self) -> dict[str, float]:
        """Of those that were added. Waits for the device. NaN where one of them was."""
        sums, weights = self.sums.tolist()
        return {name: total / weight for name, total, weight in zip(NAMES, sums, weights, strict=True) if weight}

    def clear(self) -> None:
        self.sums.zero_()
