"""What is done to the images that the discriminator sees, so that it cannot learn few images by heart.

Every transform is affine in the image, can be differentiated twice, and is drawn anew for each image from uniform numbers that the
caller provides: the result for an image depends on its own numbers alone, not on the batch around it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.augment import ada, diffaugment
from models.augment.draws import Draws
from models.config import Augment


@dataclass(frozen=True)
class Augmentation:
    """A pure function of images, of `numbers` uniform numbers for each of them, and of a probability."""

    numbers: int
    transform: Callable[[Tensor, Draws], Tensor]

    def __call__(self, images: Tensor, numbers: Tensor, probability: Tensor) -> Tensor:
        """Float images [n, C, H, W] in [-1, 1] (not clamped afterwards), each transform applied to each image or left out.

        `numbers` float32 [n, self.numbers] lie in (0, 1); `probability` is 0-dim, in [0, 1], on the images' device, and never read
        on the host. At 0 the images come back as they are. Whatever autocast says, bf16 images are transformed in fp32.
        """
        with torch.autocast(images.device.type, enabled=False):
            wide = images if images.dtype == torch.float64 else images.float()
            return self.transform(wide, Draws(numbers, probability)).to(images.dtype)


def make_augmentation(augment: Augment) -> Augmentation | None:
    """What the config asks for; None for kind "none". `augment.flip` of the data itself is not done here."""
    match augment.kind:
        case "diffaugment":
            numbers = sum(diffaugment.NUMBERS[part] for part in augment.policy)
            return Augmentation(numbers, partial(diffaugment.transform, policy=augment.policy))
        case "ada":
            return Augmentation(ada.NUMBERS, partial(ada.transform, flip=augment.flip is True))
        case "none":
            return None
