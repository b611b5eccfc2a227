"""Taking pixels from images [n, C, H, W], and taking them away. All of it is linear in the image and differentiable twice."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import grid_sample


def colours(images: Tensor) -> int:
    """How many of the channels are colours, first of all: 1 of grey, 3 of RGB; an alpha channel comes after them."""
    channels = images.shape[1]
    return channels - (channels in (2, 4))


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[n, C, h, w]: the pixels at int64 `rows` and `columns`, broadcast to [n, h, w], inside the image."""
    n, C, H, W = images.shape
    image = torch.arange(n, device=images.device)[:, None, None]
    places = (image * H + rows) * W + columns
    pixels = images.permute(0, 2, 3, 1).reshape(n * H * W, C)  # no copy where channels are last in memory
    return pixels.index_select(0, places.flatten()).view(*places.shape, C).permute(0, 3, 1, 2)


def shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by so many whole pixels [n] (float), zeros where nothing was."""
    H, W = images.shape[2:]
    rows = torch.arange(H, device=images.device) - down[:, None].long()
    columns = torch.arange(W, device=images.device) - right[:, None].long()
    inside = ((rows >= 0) & (rows < H))[:, None, :, None] & ((columns >= 0) & (columns < W))[:, None, None, :]
    return pick(images, rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None, :]) * inside


def bilinear(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """[n, C, h, w]: values at float places [n, h, w] in pixels, (0, 0) being the middle of the first one.

    Beyond its edges the image goes on as its mirror image.
    """
    if images.device.type == "cpu":
        return _bilinear_by_grid(images, y, x)
    return _bilinear_by_pixels(images, y, x)  # because the backward of grid_sample adds up in any order there


def _bilinear_by_grid(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    H, W = images.shape[2:]
    grid = torch.stack([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1], dim=-1).to(images.dtype)
    sampled: Tensor = _Sampled.apply(images, grid)  # type: ignore[no-untyped-call]
    return sampled


class _Sampled(Function):
    """What grid_sample makes of images. It is linear, and so its own derivative; of its adjoint, older torch has none."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Scattered.apply(gradient, *ctx.saved_tensors, ctx.shape), None  # type: ignore[no-untyped-call]


class _Scattered(Function):
    """The adjoint of `_Sampled`: it takes the gradient by the result to that by the images."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        images = gradient.new_zeros(shape)  # only the gradient by the grid depends on them, which is not asked for
        bilinear, reflection = 0, 2
        adjoint: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient, images, grid, bilinear, reflection, False, (True, False)
        )[0]
        return adjoint

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sampled.apply(gradient, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


def _bilinear_by_pixels(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    H, W = images.shape[2:]
    top, left = y.floor(), x.floor()
    below, beside = (y - top)[:, None].to(images.dtype), (x - left)[:, None].to(images.dtype)
    rows, columns = [_mirrored(top + i, H) for i in (0, 1)], [_mirrored(left + i, W) for i in (0, 1)]
    upper, lower = (
        (1 - beside) * pick(images, row, columns[0]) + beside * pick(images, row, columns[1]) for row in rows
    )
    return (1 - below) * upper + below * lower


def _mirrored(place: Tensor, size: int) -> Tensor:
    """int64 in [0, size) of whole numbers anywhere: 0 .. size - 1, then back again, and so on."""
    place = place.long().remainder(2 * size)
    return torch.minimum(place, 2 * size - 1 - place)


def cutout(images: Tensor, y: Tensor, x: Tensor, applied: Tensor, side: float = 0.5) -> Tensor:
    """Images with a hole of zeros around (y, x) [n], in parts of the height and width, where `applied` (bool [n]).

    It is as high and as wide as `side` parts of the image, and what lies outside the image is lost. DeVries and Taylor 2017
    (arXiv:1708.04552).
    """
    H, W = images.shape[2:]
    rows = (torch.arange(0.5, H, device=images.device) / H - y[:, None]).abs() < side / 2
    columns = (torch.arange(0.5, W, device=images.device) / W - x[:, None]).abs() < side / 2
    hole = applied[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return images.masked_fill(hole[:, None], 0)
