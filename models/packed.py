"""Layers whose weights lie in memory as the CPU's kernels read them, laid out once instead of at every call.

For a few images at a time laying out is most of what a convolution costs. The kernels are oneDNN's, which torch also calls for
plain layers, and the operations are those that torch's own compiler emits for frozen weights: they apply an activation to a result
before it goes to memory. What comes of a row does not depend on how many rows there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

FEW_CHANNELS = 4  # of a result: the kernel for transposed convolutions computes a whole vector of them at least
OPERATIONS = torch.ops.mkldnn
Finish = tuple[str, list[float], str]  # what is done to a result, as the operations call it
NOTHING: Finish = ("none", [], "")


@cache
def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the operations are there and work in this precision, which is found by trying."""
    if device.type != "cpu":
        return False
    with torch.random.fork_rng(devices=[]):
        tried = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.Flatten(), nn.Linear(32, 4))
    try:
        with torch.inference_mode():
            pack(tried.to(dtype), [(layer, nn.Tanh()) for layer in tried])(torch.zeros(1, 4, 1, 1, dtype=dtype))
    except (AttributeError, RuntimeError):  # a build of torch without oneDNN, or a CPU without bf16
        return False
    return True


def pack(network: nn.Module, activated: Iterable[tuple[nn.Module, nn.Module]] = ()) -> nn.Module:
    """The network, its convolutions and linear layers replaced in place, and with them the activations of those that are `activated`.

    Their weights must be in the precision in which they are to run.
    """
    finishes = {layer: (activation, how) for layer, activation in activated if (how := _finish(activation)) is not None}
    names = {module: name for name, module in network.named_modules()}
    for layer, name in names.items():
        activation, finish = finishes.get(layer, (None, NOTHING))
        packed = _packed(layer, finish)
        if packed is not None:
            network.set_submodule(name, packed)
            if activation in names:
                network.set_submodule(names[activation], nn.Identity())
    return network


def _packed(layer: nn.Module, finish: Finish) -> nn.Module | None:
    """What stands for a layer; None where it stays."""
    if isinstance(layer, nn.Linear):
        return PackedLinear(layer.weight, layer.bias, finish)
    if isinstance(layer, nn.Conv2d):
        return PackedConv(layer.weight, layer.bias, finish, layer.padding, layer.stride, layer.dilation, layer.groups)
    if isinstance(layer, nn.ConvTranspose2d):
        few = doubles(layer) and layer.out_channels <= FEW_CHANNELS
        return _packed_few(layer, finish) if few else _packed_transpose(layer, finish)
    return None


def _finish(activation: nn.Module) -> Finish | None:
    """The same as the operations call it; None for one that stays."""
    if isinstance(activation, nn.LeakyReLU):
        return "leaky_relu", [activation.negative_slope], ""
    return {nn.ReLU: ("relu", [], ""), nn.Tanh: ("tanh", [], "")}.get(type(activation))


class Packed(nn.Module, ABC):
    """A layer for sampling. Its weights are laid out for the first images that it sees, and serve any number of the same size."""

    weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, finish: Finish, *how: Any) -> None:
        super().__init__()
        self.how, self.finish = how, finish
        self.register_buffer("weight", weight.detach().contiguous(), persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer does."""
        if not self.weight.is_mkldnn:
            self.weight = self.laid_out(x.shape)
        return self.apply_to(x)

    @abstractmethod
    def laid_out(self, size: torch.Size) -> Tensor:
        """The weights, for inputs of this size."""

    @abstractmethod
    def apply_to(self, x: Tensor) -> Tensor:
        """What the layer makes of x, its weights laid out."""


class PackedLinear(Packed):
    """A linear layer."""

    def laid_out(self, size: torch.Size) -> Tensor:
        found: Tensor = OPERATIONS._reorder_linear_weight(self.weight, size[0])  # noqa: SLF001
        return found

    def apply_to(self, x: Tensor) -> Tensor:
        result: Tensor = OPERATIONS._linear_pointwise.default(x, self.weight, self.bias, *self.finish)  # noqa: SLF001
        return result


class PackedConv(Packed):
    """A convolution that pads with zeros: `how` are its padding, stride, dilation and groups."""

    def laid_out(self, size: torch.Size) -> Tensor:
        found: Tensor = OPERATIONS._reorder_convolution_weight(self.weight, *self.how, size)  # noqa: SLF001
        return found

    def apply_to(self, x: Tensor) -> Tensor:
        run = OPERATIONS._convolution_pointwise.default  # noqa: SLF001
        result: Tensor = run(x, self.weight, self.bias, *self.how, *self.finish)
        return result


class PackedConvTranspose(Packed):
    """A transposed convolution: `how` are its padding, output padding, stride, dilation and groups."""

    def laid_out(self, size: torch.Size) -> Tensor:
        found: Tensor = OPERATIONS._reorder_convolution_transpose_weight(self.weight, *self.how, size)  # noqa: SLF001
        return found

    def apply_to(self, x: Tensor) -> Tensor:
        run = OPERATIONS._convolution_transpose_pointwise.default  # noqa: SLF001
        result: Tensor = run(x, self.weight, self.bias, *self.how, *self.finish)
        return result


def _packed_transpose(layer: nn.ConvTranspose2d, finish: Finish) -> PackedConvTranspose:
    how = (layer.padding, layer.output_padding, layer.stride, layer.dilation, layer.groups)
    return PackedConvTranspose(layer.weight, layer.bias, finish, *how)


def _packed_few(layer: nn.ConvTranspose2d, finish: Finish) -> nn.Sequential:
    bias = None if layer.bias is None else layer.bias.repeat_interleave(4)
    four = PackedConv(kernel_of_four(layer.weight), bias, finish, (1, 1), (1, 1), (1, 1), 1)
    return nn.Sequential(four, nn.PixelShuffle(2))


def doubles(layer: nn.ConvTranspose2d) -> bool:
    """Whether it is the usual one, of a 4 x 4 kernel, that doubles height and width."""
    how = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation, layer.groups)
    return how == ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1)


@torch.no_grad()
def kernel_of_four(weight: Tensor) -> Tensor:
    """From a layer that doubles, [in, out, 4, 4], to the convolution [4 out, in, 3, 3] that gives each pixel's four as channels
    (arXiv:1609.07009, section 3).

    Of its nine taps each result uses four: pixel 2 i + a is the sum over d of x[i + d] times the kernel's element a + 1 - 2 d.
    """
    inputs, outputs = weight.shape[:2]
    kernel = torch.zeros(outputs, 2, 2, inputs, 3, 3, dtype=weight.dtype)
    for a, b, d, e in product((0, 1), (0, 1), (-1, 0, 1), (-1, 0, 1)):
        row, column = a + 1 - 2 * d, b + 1 - 2 * e
        if 0 <= row < 4 and 0 <= column < 4:
            kernel[:, a, b, :, d + 1, e + 1] = weight[:, :, row, column].T
    return kernel.view(4 * outputs, inputs, 3, 3)
