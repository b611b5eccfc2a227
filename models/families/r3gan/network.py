"""The two networks of `r3gan`, after Huang et al. 2024 (arXiv:2501.05441), sections 3 and 4.

Both are residual networks without normalisation. What keeps them trainable is their first weights (fix-up, arXiv:1901.09321): every
block starts as the identity. Labels join as an embedding beside z, and in the discriminator as a projection (arXiv:1802.05637, eq. 3).
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.components import Components
from models.config import DataSpec
from models.families.layouts import layout_of
from models.families.r3gan.spec import R3ganOptions
from models.layers import Network, look_up

LEAK = 0.2
CLASS_DIM = 64


class Block(nn.Module):
    """x + contract(mix(expand(x))): 1 x 1 to twice the channels, 3 x 3 in groups of them, and 1 x 1 back.

    Without groups the 3 x 3 works on half the channels instead: fewer values to move through memory, which is what a CPU waits for.
    """

    def __init__(self, width: int, group_size: int | None) -> None:
        super().__init__()
        hidden = 2 * width if group_size else width // 2
        self.expand = nn.Conv2d(width, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden // (group_size or hidden))
        self.contract = nn.Conv2d(hidden, width, 1, bias=False)
        self.activations = nn.ModuleList(nn.LeakyReLU(LEAK) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, H, W] to the same."""
        first, second = self.activations
        change: Tensor = self.contract(second(self.mix(first(self.expand(x)))))
        return x + change


def doubling(size: int) -> Tensor:
    """The matrix [2 * size, size] of linear interpolation to twice as many pixels; those beyond the border are like the border's."""
    return interpolate(torch.eye(size)[None], scale_factor=2, mode="linear")[0].T.contiguous()


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """From x [n, C, H, W] to [n, C, H', W'] by the matrices rows [H', H] and columns [W', W].

    Matrix products are as fast here as kernels made for it, in bf16 many times as fast as a depthwise convolution, can be
    differentiated as often as one likes, and come out the same every time on every device.
    """
    n, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, height, width * channels)  # no copy: channels are last in memory
    x = torch.matmul(rows, x).view(n, len(rows), width, channels)
    return torch.matmul(columns, x).permute(0, 3, 1, 2)


class Resampling(nn.Module):
    """A change of channels, where there is any, at the lower of two resolutions."""

    rows: Tensor
    columns: Tensor

    def __init__(self, channels: tuple[int, int], rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.change = nn.Conv2d(*channels, 1, bias=False) if channels[0] != channels[1] else nn.Identity()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)


class Up(Resampling):
    """Twice the height and width, by bilinear interpolation."""

    def __init__(self, channels: tuple[int, int], height: int, width: int) -> None:
        super().__init__(channels, doubling(height), doubling(width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, height, width] to [n, C', 2 height, 2 width]."""
        return resample(self.change(x), self.rows, self.columns)


class Down(Resampling):
    """Half the height and width: the transpose of doubling, scaled so that it keeps the mean; inside it is the filter [1, 3, 3, 1] / 8."""

    def __init__(self, channels: tuple[int, int], height: int, width: int) -> None:
        super().__init__(channels, doubling(height // 2).T / 2, doubling(width // 2).T / 2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, height, width] to [n, C', height / 2, width / 2]."""
        halved: Tensor = self.change(resample(x, self.rows, self.columns))
        return halved


class R3gan(Network):
    """What the networks share: residual blocks, and their first weights."""

    def initial_std(self, name: str, weight: Tensor) -> float:
        """Of gain / sqrt(fan_in), where all gains are 1 but those of the residual blocks.

        With L blocks in a network these are sqrt(2 / (1 + leak^2)) L^(-1/4) in the first two convolutions and 0 in the last
        (arXiv:1901.09321, section 3, for three layers a block). An embedding stands for a linear layer of one-hot labels.
        """
        if name.endswith("contract.weight"):
            return 0.0
        fan_in = len(weight) if name == "embedding.weight" else weight[0].numel()
        if not name.endswith(("expand.weight", "mix.weight")):
            return float(fan_in**-0.5)
        blocks = sum(isinstance(module, Block) for module in self.modules())
        return float((2 / (1 + LEAK**2) / fan_in) ** 0.5 * blocks**-0.25)

    def activated(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        for block in self.modules():
            if isinstance(block, Block):
                yield from zip((block.expand, block.mix), block.activations, strict=True)


class Generator(R3gan):
    """z [n, z_dim] and labels int64 [n] or mixtures float32 [n, classes] (None when unconditional) to images [n, C, H, W], meant for [-1, 1] but not kept in it."""

    def __init__(self, options: R3ganOptions, data: DataSpec) -> None:
        super().__init__()
        plan, widths, classes = layout_of(data), options.widths(data), options.class_rows(data)
        self.components = Components(options, data)
        self.embedding = nn.Embedding(classes, CLASS_DIM) if classes else None
        self.gains = nn.Linear(options.z_dim + (CLASS_DIM if classes else 0), widths[0], bias=False)
        self.basis = nn.Parameter(torch.empty(plan.base_height, plan.base_width, widths[0]))
        layers: list[nn.Module] = [Block(widths[0], options.group_size) for _ in range(options.blocks)]
        for stage, channels in enumerate(pairwise(widths)):
            layers.append(Up(channels, plan.base_height << stage, plan.base_width << stage))
            layers += [Block(channels[1], options.group_size) for _ in range(options.blocks)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], data.channels, 1, bias=False))

    def initial_std(self, name: str, weight: Tensor) -> float:
        """The basis is N(0, 1)."""
        return 1.0 if name == "basis" else super().initial_std(name, weight)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        rows = self.components(z, labels)
        z = z.to(self.gains.weight.dtype)
        if self.embedding is not None:
            z = torch.cat([z, look_up(self.embedding, rows)], dim=1)
        gains = self.gains(z)[:, None, None]
        x = gains * self.basis.to(gains.dtype)  # autocast would keep all that is added to it in float32 otherwise
        images: Tensor = self.layers(x.permute(0, 3, 1, 2))  # channels last in memory, at no cost
        return images


class Discriminator(R3gan):
    """Images [n, C, H, W] in [-1, 1] and rows int64 [n] of its table of classes (None without one) to logits [n]."""

    def __init__(self, options: R3ganOptions, data: DataSpec) -> None:
        super().__init__()
        plan, widths, classes = layout_of(data), options.widths(data)[::-1], options.class_rows(data)
        layers: list[nn.Module] = [nn.Conv2d(data.channels, widths[0], 1, bias=False)]
        for stage, channels in enumerate(pairwise(widths)):
            layers += [Block(channels[0], options.group_size) for _ in range(options.blocks)]
            layers.append(Down(channels, data.height >> stage, data.width >> stage))
        layers += [Block(widths[-1], options.group_size) for _ in range(options.blocks)]
        self.layers = nn.Sequential(*layers)
        self.basis = nn.Parameter(torch.empty(plan.base_height, plan.base_width, widths[-1]))
        self.head = nn.Linear(widths[-1], widths[-1] if classes else 1, bias=False)
        self.embedding = nn.Embedding(classes, widths[-1]) if classes else None

    def initial_std(self, name: str, weight: Tensor) -> float:
        """The basis is a depthwise convolution over the whole base; the embedding has the gain 1 / sqrt(width)."""
        if name == "basis":
            return float(weight[..., 0].numel() ** -0.5)
        return super().initial_std(name, weight) * (weight.shape[1] ** -0.5 if name == "embedding.weight" else 1)

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        x = self.layers(x).permute(0, 2, 3, 1)
        with torch.autocast(x.device.type, enabled=False):  # losses compare logits by less than bf16 rounds them
            features: Tensor = self.head((x.to(self.basis.dtype) * self.basis).sum(dim=(1, 2)))
            return features.squeeze(1) if self.embedding is None else (features * self.embedding(rows)).sum(dim=1)
