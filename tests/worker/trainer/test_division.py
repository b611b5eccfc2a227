"""How data are divided into components, and that a run goes on with the division that it began with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker.runs import assert_same_end, config, newest, prepare, run_here
from worker.data.prepared import Data, open_data
from worker.trainer import division
from worker.trainer.division import divide, find_components


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return open_data(folder)


def test_data_without_classes_are_divided_as_a_whole(data: Data) -> None:
    """Where the bright square stands is what differs most: each corner a component."""
    division = divide(config(network={"conditional": False, "components": 3}), data)
    assert division is not None
    pairs = set(zip(division.components.tolist(), data.labels.tolist(), strict=True))
    assert len(pairs) == 3
    assert division.shares.shape == (1, 3)
    assert division.shares.sum() == 1


def test_classes_are_divided_each_by_itself(data: Data) -> None:
    """As many components in each, whose shares add up to one; an example without a label has none."""
    labels = data.labels.copy()
    labels[7] = -1
    found = find_components(data, labels, 2)
    assert found[7] == 0
    division = divide(config(network={"components": 2}), data)
    assert division is not None
    assert division.shares.shape == (3, 2)
    assert division.shares.sum(axis=1) == pytest.approx(np.ones(3))
    assert (division.shares > 0).all()


def test_many_components_are_found_by_their_means(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eigenvectors would take too long."""
    monkeypatch.setattr(division, "MOST_SPECTRAL", 2)
    monkeypatch.setattr(division, "spectral_clusters", None)
    assert set(find_components(data, np.zeros_like(data.labels), 3).tolist()) == {0, 1, 2}


def test_one_component_is_none(data: Data) -> None:
    """Nothing is looked at."""
    assert divide(config(), data) is None


@pytest.mark.parametrize(
    "shape", [{"height": 64, "width": 40, "channels": 3}, {"height": 8, "width": 8, "channels": 4}]
)
def test_images_of_any_shape_are_divided(tmp_path: Path, shape: dict[str, int]) -> None:
    """Large ones are averaged down first."""
    division = divide(config(network={"components": 2}), open_data(prepare(tmp_path, n=20, **shape)))
    assert division is not None
    assert set(division.components.tolist()) == {0, 1}


@pytest.mark.parametrize("network", [{"components": 3}, {"conditional": False, "components": 4}])
def test_a_stopped_run_goes_on_with_its_division(tmp_path: Path, folder: Path, network: dict) -> None:
    """To the same bits as one that was left alone; its checkpoints hold which component each example belongs to."""
    undisturbed = run_here(tmp_path / "undisturbed", folder, network=network)
    stopped = run_here(tmp_path / "stopped", folder, stop_after=11, network=network)
    saved = torch.load(newest(stopped) / "state.pt", weights_only=True)
    assert saved["components"].shape == (50,)
    assert_same_end(run_here(stopped, folder, network=network), undisturbed)
