"""Inception-v3 as FID was defined with (arXiv:1706.08500), through torch-fidelity, an optional dependency. Nothing is imported before
it is needed, and weights are read as plain tensors.
"""

import importlib.util
import io
import pickle
import socket
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, hub

from models.config import ConfigError
from worker.evaluation.features import Features, Images

NAME = "inception-v3-compat (torch-fidelity)"
FILE = "weights-inception-2015-12-05-6726825d.pth"  # and the first digits of its SHA-256
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
DIM = 2_048
SILENCE_SECONDS = 30.0  # of a server, while the weights are downloaded
_WEIGHTS_HINT = "give the path of its weights, use other features, or run once where it can be downloaded"


def is_installed() -> bool:
    """Whether torch-fidelity and the torchvision that it needs are there."""
    return all(importlib.util.find_spec(name) for name in ("torch_fidelity", "torchvision"))


def check_installed() -> None:
    """Raises ConfigError when they are not: before anything is downloaded for them."""
    if not is_installed():
        raise _unusable("Inception needs the packages torch-fidelity and torchvision")


def find_weights(given: Path | None) -> Path | None:
    """The weights' file, as it was given or as torch hub keeps it; None when it is not there."""
    candidates = [given] if given else [Path(hub.get_dir()) / "checkpoints" / FILE]
    return next((path for path in candidates if path.is_file()), None)


def download_weights() -> Path:
    """Fetch the weights (91 MB) into torch hub's cache. Raises ConfigError when that fails."""
    path = Path(hub.get_dir()) / "checkpoints" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = Path(FILE).stem.rpartition("-")[2]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)  # torch sets none
    try:
        hub.download_url_to_file(URL, str(path), digits, progress=False)
    except (
        URLError,
        TimeoutError,
        ConnectionError,
        RuntimeError,
    ) as error:  # RuntimeError: not the file that was expected
        raise _unusable(f"Inception's weights cannot be downloaded ({error}); {_WEIGHTS_HINT}") from error
    finally:
        socket.setdefaulttimeout(before)
    return path


def inception_features(weights: Path, device: torch.device) -> Features:
    """The 2,048 features before the last layer. Images of any size are scaled to 299 x 299; one channel is repeated, and alpha
    blends with black. Raises ConfigError when torch-fidelity or the weights cannot be used.
    """
    network = _load(weights).to(device)

    def embed(images: Images) -> Tensor:
        colours = torch.from_numpy(_as_rgb(images)).to(device).permute(0, 3, 1, 2)
        features: Tensor = network(colours)[0]
        return features

    return Features(NAME, DIM, embed)


def _load(weights: Path) -> Any:
    """torch-fidelity would unpickle whatever the file holds, so it is given tensors that were read without running any code."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise _unusable(f"Inception needs the packages torch-fidelity and torchvision ({error})") from error
    except RuntimeError as error:
        raise _unusable(f"Inception needs a torchvision that was built for this torch ({error})") from error
    try:
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
        plain = io.BytesIO()
        torch.save(tensors, plain)
        plain.seek(0)
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=plain)
    except (OSError, EOFError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise _unusable(f"{weights.name} does not hold Inception's weights ({type(error).__name__})") from error


def _as_rgb(images: Images) -> Images:
    """uint8 [n, H, W, 1, 3 or 4] to uint8 [n, H, W, 3]."""
    channels = images.shape[3]
    if channels == 1:
        return np.repeat(images, 3, axis=3)
    if channels == 4:
        return (images[..., :3].astype(np.uint16) * images[..., 3:] // 255).astype(np.uint8)
    return np.array(images[..., :3])


def _unusable(reason: str) -> ConfigError:
    return ConfigError([("/evaluation/features", reason)])
