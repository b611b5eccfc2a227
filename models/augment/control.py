"""How strongly ADA augments: Karras et al. 2020 (arXiv:2006.06676), section 3.1."""

from torch import Tensor

from models.config import Augment


def next_probability(probability: Tensor, sign: Tensor, examples: int, augment: Augment) -> Tensor:
    """The probability after so many more examples, 0-dim and on the device, in [0, augment.most]; nothing is read on the host.

    `sign` is the mean sign of D(x) over those examples (r_t of eq. 1), less the loss's LEVEL, or, where a loss leaves the level of D
    free, that of D(x) - D(G(z)). Over `augment.target`, D knows its real examples by heart and the probability rises, at a speed that would take it
    from 0 to 1 in `augment.speed` examples; under it, it falls at the same speed.
    """
    step = (sign - augment.target).sign() * (examples / augment.speed)
    return (probability + step).clamp(0, augment.most)
