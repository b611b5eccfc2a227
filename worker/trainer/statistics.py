"""Sums that stay on the device until a tick asks for their means, so that no step waits for the host."""

import torch
from torch import Tensor

NAMES = ("loss_d", "loss_g", "logits_real", "logits_fake")


class Statistics:
    """Means over the steps since the last tick. `sums` is what a checkpoint keeps of it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(NAMES) + 3, dtype=torch.float64, device=device)  # and r1, its steps, all steps

    @torch.no_grad()
    def add(self, loss_d: Tensor, loss_g: Tensor, real_logits: Tensor, fake_logits: Tensor) -> None:
        """One step's losses (scalars) and logits [n]."""
        self.sums[: len(NAMES)] += torch.stack([loss_d, loss_g, real_logits.mean(), fake_logits.mean()])
        self.sums[-1] += 1

    @torch.no_grad()
    def add_r1(self, r1: Tensor) -> None:
        """One evaluation of the penalty, a scalar."""
        self.sums[-3] += r1
        self.sums[-2] += 1

    def means(self) -> dict[str, float]:
        """Waits for the device. NaN where a step's number was; `r1` only if it was evaluated."""
        *sums, r1, r1_steps, steps = self.sums.tolist()
        means = {name: total / max(steps, 1) for name, total in zip(NAMES, sums, strict=True)}
        return means | ({"r1": r1 / r1_steps} if r1_steps else {})

    def clear(self) -> None:
        self.sums.zero_()
