"""Samples from a model file: seeds to z, z to uint8 images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.build import construct
from models.catalog import networks
from models.manifest import WEIGHTS, GeneratorInfo, ModelFileError, read_info
from models.memory import is_out_of_memory
from models.prepared import prepare
from models.randomness import sample_latents

__all__ = ["GeneratorInfo", "LoadedGenerator", "ModelFileError", "latents", "load_generator", "read_info", "to_uint8"]


Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]  # [n] classes, or [n, classes] mixtures

# How files and layers say that sizes do not fit them.
MISFITS = (SafetensorError, RuntimeError, AssertionError, ValueError, TypeError, ArithmeticError, LookupError)
MIXTURE_TOLERANCE = 1e-4  # of a sum


class LoadedGenerator:
    """A generator ready to sample. It holds no state but its weights: equal arguments give equal images."""

    def __init__(self, info: GeneratorInfo, network: nn.Module, device: torch.device) -> None:
        self.info = info
        self.device = device
        self._network = network
        self.nbytes = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))

    def prepared(self, precision: str = "fp32") -> "LoadedGenerator":
        """The same in the form in which it samples fastest, in "fp32" or "bf16"; this one is of no use any more."""
        return LoadedGenerator(self.info, prepare(self._network, self.device, precision), self.device)

    def generate(self, z: npt.NDArray[np.float32], labels: Labels | None = None) -> npt.NDArray[np.uint8]:
        """uint8 [n, H, W, C] from float32 [n, z_dim] and labels, which a conditional model needs: int64 [n] classes, or float32
        [n, classes] mixtures of them, whose rows sum to 1.

        Raises ValueError for a wrong shape, labels that are out of range or no mixtures, are missing or not wanted.
        """
        return to_uint8(self._run(z, labels))

    def forward(self, z: npt.NDArray[np.float32], labels: Labels | None = None) -> npt.NDArray[np.float32]:
        """What `generate` rounds to uint8: float32 [n, C, H, W] in [-1, 1]. It shows differences that rounding mostly hides."""
        images: npt.NDArray[np.float32] = self._run(z, labels).float().cpu().numpy()
        return images

    @torch.inference_mode()
    def _run(self, z: npt.NDArray[np.float32], labels: Labels | None) -> Tensor:
        self._check(z, labels)
        if not len(z):
            return torch.empty((0, self.info.channels, self.info.height, self.info.width))
        on_device = None if labels is None else torch.from_numpy(labels).to(self.device)
        # A copy in torch's own memory: the sums of a matrix product may depend on how its inputs are aligned.
        images: Tensor = self._network(torch.tensor(z, device=self.device), on_device)
        return images

    def _check(self, z: npt.NDArray[np.float32], labels: Labels | None) -> None:
        if z.ndim != 2 or z.shape[1] != self.info.z_dim:
            raise ValueError(f"z has the shape {z.shape}, and this model takes [n, {self.info.z_dim}]")
        if (labels is not None) != self.info.conditional:
            raise ValueError("labels are for conditional models, which need them")
        if labels is None:
            return
        classes = len(self.info.classes)
        if labels.ndim == 2:
            if labels.dtype != np.float32 or labels.shape != (len(z), classes) or not _are_mixtures(labels):
                raise ValueError(
                    f"mixtures of classes are float32 [n, {classes}], not negative, and of each row the sum is 1"
                )
        elif labels.shape != (len(z),) or not bool(((labels >= 0) & (labels < classes)).all()):
            raise ValueError(f"labels are [n] numbers from 0 to {classes - 1}")


def _are_mixtures(labels: Labels) -> bool:
    return bool((labels >= 0).all() and (np.abs(labels.sum(axis=1) - 1) <= MIXTURE_TOLERANCE).all())


def to_uint8(images: Tensor) -> npt.NDArray[np.uint8]:
    """[n, C, H, W] in [-1, 1] to uint8 [n, H, W, C] on the host; -1 is 0 and 1 is 255."""
    scaled = torch.add(images.float(), 1).mul_(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()


def load_generator(snapshot: Path, device: torch.device | str = "cpu") -> LoadedGenerator:
    """The generator of a snapshot folder, in float32 and evaluation mode. Raises ModelFileError."""
    info = read_info(snapshot)
    path = snapshot / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise ModelFileError(f"{path} is damaged: its SHA-256 is not the one in the manifest")
    try:
        network = _build(info, content)
    except MISFITS as error:
        if is_out_of_memory(error):
            raise
        raise ModelFileError(f"{path} does not hold the weights that its manifest describes: {error}") from error
    return LoadedGenerator(info, network.eval().to(device), torch.device(device))


def _build(info: GeneratorInfo, content: bytes) -> nn.Module:
    network: nn.Module = construct(lambda: networks(info.network.family).Generator(info.network, info.data))
    weights = {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}  # aligned by torch
    network.load_state_dict(weights, strict=True, assign=True)
    return network


def latents(
    info: GeneratorInfo, seeds: Sequence[int], truncation: float | npt.NDArray[np.float32] = 1.0
) -> npt.NDArray[np.float32]:
    """float32 [len(seeds), z_dim]; `truncation` in (0, 1], for all or [n, 1], draws z towards its mean, which is 0."""
    return sample_latents(seeds, info.z_dim) * np.asarray(truncation, np.float32)
