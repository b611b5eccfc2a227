"""torch-fidelity, whose numbers ours are held against."""

import importlib
from types import ModuleType

import torch


def fidelity(module: str) -> ModuleType:
    """A module of torch-fidelity. It imports torchvision and calls nothing of it but its scaling of images.

    torchvision's wheels bring operators that load beside a torch built for CUDA alone, and its import fails where they are not
    declared; so they are, and it works beside any torch.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module(f"torch_fidelity.{module}")
