"""Images of the generator that is being trained."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worker.trainer.draws import generate

CPU = torch.device("cpu")


class Narrow(nn.Module):
    """A generator that has memory for so many images at a time, and notes how many it was asked for."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        self.asked.append(len(z))
        if len(z) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert labels is not None
        return (z[:, :1, None, None] / 100 + labels[:, None, None, None] / 10).expand(-1, 1, 2, 2)


def test_images_come_in_the_order_of_their_latents_however_little_memory_there_is() -> None:
    """Fewer at a time once memory runs out, for the rest of them, and each image once."""
    z = np.arange(10, dtype=np.float32)[:, None]
    labels = np.arange(10) % 3
    narrow = Narrow(3)
    images = generate(narrow, z, labels, CPU, at_a_time=8)
    assert narrow.asked == [8, 4, 2, 2, 2, 2, 2]
    assert np.array_equal(images, generate(Narrow(10), z, labels, CPU, at_a_time=10))
    assert images.shape == (10, 2, 2, 1)


def test_what_does_not_fit_at_all_is_an_error() -> None:
    """There is nothing below one image."""
    with pytest.raises(torch.OutOfMemoryError):
        generate(Narrow(0), np.zeros((4, 1), np.float32), np.zeros(4, np.int64), CPU, at_a_time=4)
