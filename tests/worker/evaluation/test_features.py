"""Which features are taken, and that they are the same every time."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import ConfigError
from tests.worker.evaluation.data import images_of, with_classifier
from tests.worker.evaluation.fidelity import fidelity
from worker.evaluation import inception
from worker.evaluation.features import BATCH, choose_features

CPU = torch.device("cpu")
PINNED = (0.232527956, 0.474643111)  # mean and standard deviation of the features of three images


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch hub's cache is empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file such as Inception's weights, but drawn at random."""
    module: Any = fidelity("feature_extractor_inceptionv3")

    class Untrained(module.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: Any) -> None:
            """What it was initialised with stays."""

    path = tmp_path_factory.mktemp("inception") / inception.FILE
    torch.save({}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(Untrained("x", ["2048"], feature_extractor_weights_path=str(path)).state_dict(), path)
    return path


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 5), (28, 28), (200, 90)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_random_features_take_any_image(shape: tuple[int, int], channels: int, tmp_path: Path) -> None:
    """Images of any size and number of channels have float32 features that tell them apart and do not depend on their company."""
    features = choose_features("random", tmp_path, CPU)
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, channels)).astype(np.uint8)
    found = features(images)
    assert (features.name, found.dtype, found.shape) == ("random-conv", torch.float32, (5, features.dim))
    assert found.isfinite().all()
    assert len(found.unique(dim=0)) == 5
    assert torch.allclose(features(images[2:3]), found[2:3], atol=1e-5)


def test_random_features_are_pinned(tmp_path: Path) -> None:
    """The weights are part of what KID means, so that a change of them is a change of the metric."""
    features = choose_features("random", tmp_path, CPU)
    found = features(images_of(3, 8, 8, 1))
    assert found.mean().item() == pytest.approx(PINNED[0], rel=1e-4)
    assert found.std().item() == pytest.approx(PINNED[1], rel=1e-4)


def test_batches_come_out_in_order(tmp_path: Path) -> None:
    """More images than fit a batch give a row each, in their order."""
    features = choose_features("random", tmp_path, CPU)
    images = images_of(2 * BATCH + 3, 4, 4, 1)
    found = features(images)
    assert len(found) == len(images)
    assert torch.allclose(found[BATCH : BATCH + 1], features(images[BATCH : BATCH + 1]), atol=1e-5)


@pytest.mark.usefixtures("no_cache")
def test_auto_takes_the_classifier_where_there_is_one(tmp_path: Path, weights: Path) -> None:
    """A prepared classifier comes before random features, and on a CPU before Inception; it judges classes from its features."""
    assert choose_features("auto", tmp_path, CPU, weights).name == "random-conv"
    images, labels = with_classifier(tmp_path)
    features = choose_features("auto", tmp_path, CPU, weights)
    assert features.name == "classifier"
    assert features.accuracy is not None
    assert features.classify is not None
    found = features(images)
    assert found.shape == (len(images), features.dim)
    assert (features.classify(found).numpy() == labels).mean() > 0.9
    assert choose_features("random", tmp_path, CPU).name == "random-conv"


@pytest.mark.usefixtures("no_cache")
def test_what_is_asked_for_and_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that was not trained and Inception without weights and network are refused, each with what to do."""
    with pytest.raises(ConfigError, match="no classifier"):
        choose_features("classifier", tmp_path, CPU)
    monkeypatch.setattr(inception, "URL", "http://127.0.0.1:9/nothing-listens-here")
    with pytest.raises(ConfigError, match="cannot be downloaded"):
        choose_features("inception", tmp_path, CPU, tmp_path / "absent")


@pytest.mark.usefixtures("no_cache")
def test_a_server_that_says_nothing_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the connection and never answers; other connections of the process keep their own patience."""
    monkeypatch.setattr(inception, "SILENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/weights")
        with pytest.raises(ConfigError, match=r"cannot be downloaded .*timed out"):
            choose_features("inception", tmp_path, CPU)
    assert socket.getdefaulttimeout() is None


def test_inception_is_torch_fidelitys(tmp_path: Path, weights: Path) -> None:
    """Inception's features are torch-fidelity's own for the same weights, from grey and transparent images too."""
    features = choose_features("inception", tmp_path, CPU, weights)
    assert (features.name, features.dim) == ("inception-v3-compat (torch-fidelity)", 2_048)
    colour = images_of(1, 20, 12, 3)
    network = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(weights)
    )
    expected = network(torch.from_numpy(colour).permute(0, 3, 1, 2))[0]
    assert torch.equal(features(colour), expected)
    opaque = np.concatenate([colour, np.full((1, 20, 12, 1), 255, np.uint8)], axis=3)
    assert torch.equal(features(opaque), expected)
    grey = colour[..., :1]
    assert torch.equal(features(grey), features(np.repeat(grey, 3, axis=3)))


@pytest.mark.usefixtures("no_cache")
def test_weights_are_found_in_the_cache(tmp_path: Path, weights: Path) -> None:
    """Weights that torch hub has fetched before are at hand without a setting, and nothing is downloaded."""
    assert inception.find_weights(None) is None
    cached = tmp_path / "hub" / "checkpoints" / inception.FILE
    cached.parent.mkdir(parents=True)
    cached.symlink_to(weights)
    assert inception.find_weights(None) == cached
    assert choose_features("inception", tmp_path, CPU).dim == 2_048


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Weights are read as plain tensors: a pickle of anything else is an error, and is not run."""
    fidelity("feature_extractor_inceptionv3")
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (ran,)  # type: ignore[return-value]

    torch.save({"fc.weight": Bomb()}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="does not hold"):
        choose_features("inception", tmp_path, CPU, tmp_path / "weights.pth")
    assert not ran.exists()
