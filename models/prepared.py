"""A trained generator in the form in which it samples fastest: what can be done once is done once, when it is loaded.

It samples the same images but for rounding: in float32 no 8-bit value is off by more than one, in bfloat16 by more than a few.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.captured import Captured
from models.components import Components
from models.fingerprint import cpu_has
from models.layers import ConditionalBatchNorm, Network
from models.packed import can_pack, pack

FEWEST_ROWS = 4  # at once in a matrix product


class Unchanged(nn.Module):
    """Where a normalisation was."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002 - as a normalisation is called
        return x


class SteadyLinear(nn.Linear):
    """A linear layer whose result for a row does not depend on there being few rows.

    A matrix times one vector is summed in another order than a product of matrices, and so are, with MKL, two or three. The
    layer is a small part of any generator here, so that a few rows more cost nothing.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> Self:
        """The same layer."""
        steady = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        steady.weight, steady.bias = layer.weight, layer.bias
        return steady

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in the base class
        missing = FEWEST_ROWS - len(input)
        return super().forward(pad(input, (0, 0, 0, missing)))[:-missing] if missing > 0 else super().forward(input)


@torch.no_grad()
def prepare(network: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The network, changed in place for sampling on this device in "fp32" or "bf16"."""
    network.eval().requires_grad_(requires_grad=False)
    if isinstance(network, Network):
        fold_norms(network)
    network.to(device)
    lay_out_channels_last(network)
    if precision == "bf16":
        round_weights(network)
    if device.type == "cuda":
        return Captured(steady(network))
    packs = can_pack(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    activated = network.activated() if isinstance(network, Network) else ()
    return pack(network, activated) if packs else steady(network)


def steady(network: nn.Module) -> nn.Module:
    """The network, its linear layers replaced in place."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear):
            network.set_submodule(name, SteadyLinear.of(layer))
    return network


def fold_norms(network: Network) -> None:
    """Batch normalisation with fixed statistics is a gain and a bias, which the layer before it can have in its weights."""
    names = {module: name for name, module in network.named_modules()}
    for layer, norm in network.normalised():
        inner = norm.norm if isinstance(norm, ConditionalBatchNorm) else norm
        assert isinstance(inner, nn.BatchNorm2d)
        _fold(layer, inner)
        network.set_submodule(names[inner], Unchanged())


def _fold(layer: nn.Linear | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    before = 0.0 if layer.bias is None else layer.bias.double()
    if isinstance(layer, nn.Linear):  # its outputs are pixels, each of all channels
        pixels = layer.out_features // norm.num_features
        gain, mean = gain.repeat(pixels), norm.running_mean.double().repeat(pixels)
        along = gain[:, None]
    else:
        mean = norm.running_mean.double()
        along = gain[None, :, None, None]
    bias = (before - mean) * gain
    if norm.bias is not None:
        bias = bias + norm.bias.double().repeat(len(bias) // norm.num_features)
    layer.weight.data = (layer.weight.double() * along).float()
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)


def lay_out_channels_last(network: nn.Module) -> None:
    """Convolutions find their weights, and leave all that they compute, with the channels last in memory."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            # Spelled out, because `contiguous` leaves a weight of one channel in a layout that counts as channels first.
            out, channels, height, width = parameter.shape
            laid_out = torch.empty(out, height, width, channels, device=parameter.device, dtype=parameter.dtype)
            parameter.data = laid_out.permute(0, 3, 1, 2).copy_(parameter.data)


def round_weights(network: nn.Module) -> None:
    """All to bfloat16, but for the edges between components: on which side of one a sample lies is no matter of rounding."""
    for module in network.modules():
        if isinstance(module, Components):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.bfloat16()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.bfloat16())


def faster_precision(device: torch.device) -> str:
    """Of "bf16" and "fp32" the one that the hardware gains from. A CPU without an instruction that multiplies bf16 emulates it, slowly."""
    on_cpu = cpu_has("amx_bf16") or cpu_has("avx512_bf16")
    gains = torch.cuda.is_bf16_supported() if device.type == "cuda" else on_cpu
    return "bf16" if gains else "fp32"
