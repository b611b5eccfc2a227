"""Batch normalisation over several ranks beside torch's own over the whole batch: `python -m tests.worker.trainer.normalising_rank DIRECTORY`.

Every rank knows the whole batch and compares its share of outputs and gradients. It ends with status 0 where they are equal.
"""

import numpy as np
import torch
from torch import Tensor, distributed, nn

from worker.trainer.parallel import Ranks, joined, synchronise


def batch(far: float) -> Tensor:
    """float32 [8, 3, 4, 4] whose means lie so many deviations from zero, and differ from one half to the other."""
    values = np.random.default_rng(5).normal(far, 1.0, (8, 3, 4, 4)).astype(np.float32)
    values[4:] += 0.5
    return torch.from_numpy(values)


def layer() -> nn.BatchNorm2d:
    """With weights and biases that are not those of a fresh one."""
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    return norm


def judged(norm: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the gradient of some logits with respect to the images, and that of its squared length: as R1 asks for."""
    images = images.clone().requires_grad_(True)
    outputs = norm(images)
    (once,) = torch.autograd.grad((outputs + outputs.square() / 3).tanh().sum(), images, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), [images], retain_graph=True)
    once.square().sum().backward()
    return outputs.detach(), once.detach(), twice


def compare(ranks: Ranks, far: float) -> None:
    """Raises AssertionError where the two differ by more than rounding, which grows with the distance from zero."""
    whole, ours = layer(), layer()
    synchronise(ranks, ours)
    expected = judged(whole, batch(far))
    first, n = ranks.share(0, 8)
    close = {"rtol": 1e-4, "atol": 1e-5 * max(1.0, far)}
    for mine, all_of_them in zip(judged(ours, batch(far)[first : first + n]), expected, strict=True):
        torch.testing.assert_close(mine, all_of_them[first : first + n], **close)
    for mine, theirs in zip(ours.parameters(), whole.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(ranks.sum(mine.grad), theirs.grad, **close)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(whole, name))
    ours.eval(), whole.eval()
    torch.testing.assert_close(ours(batch(far)), whole(batch(far)))


if __name__ == "__main__":
    with joined() as ranks:
        assert distributed.get_world_size() == ranks.world == 2
        for far in (0.0, 3.0, 1000.0):
            compare(ranks, far)
