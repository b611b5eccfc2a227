"""Components: a latent vector tells its own, as often as the data have it, and in training it is made to tell a given one."""

import numpy as np
import pytest
import torch

from models.build import build_generator
from models.catalog import check, parse_config, parse_network
from models.components import Components, Division, steer
from models.config import ConfigError, DataSpec, NetworkOptions
from models.randomness import sample_latents

DATA = DataSpec(examples=9, height=8, width=8, channels=1, classes=("a", "b"))
SHARES = np.array([[0.1, 0.2, 0.7], [0.0, 1.0, 0.0]])
N = 20_000
Z = sample_latents(range(N), 4)


def options(**chosen: object) -> NetworkOptions:
    return parse_network({"family": "dcgan", "z_dim": 4, "components": 3, **chosen})


def rows_of(z: np.ndarray, labels: np.ndarray | None, shares: np.ndarray, **chosen: object) -> np.ndarray:
    components = Components(options(conditional=labels is not None, **chosen), DATA)
    components.divide(shares)
    rows = components(torch.from_numpy(z), None if labels is None else torch.from_numpy(labels))
    assert rows is not None
    return rows.numpy()


def test_components_come_as_often_as_in_the_data() -> None:
    """Without classes by the first row of shares; with them by the row of each class, whose components stand together."""
    assert np.bincount(rows_of(Z, None, SHARES[:1]), minlength=3) / N == pytest.approx(SHARES[0], abs=0.01)
    labels = np.arange(N) % 2
    rows = rows_of(Z, labels, SHARES)
    assert np.bincount(rows[labels == 0], minlength=6) * 2 / N == pytest.approx([*SHARES[0], 0, 0, 0], abs=0.015)
    assert set(rows[labels == 1]) == {4}


def test_they_start_out_equal() -> None:
    """Until it is told better, a generator draws each as often."""
    rows = Components(options(conditional=False), DATA)(torch.from_numpy(Z), None)
    assert rows is not None
    assert torch.bincount(rows) / N == pytest.approx(np.full(3, 1 / 3), abs=0.01)


def test_truncation_changes_no_component() -> None:
    """z drawn towards its mean keeps its direction."""
    assert (rows_of(Z * np.float32(0.3), None, SHARES[:1]) == rows_of(Z, None, SHARES[:1])).all()


def test_a_hidden_class_has_the_last_row() -> None:
    """Whatever z says."""
    rows = rows_of(Z, np.full(N, 2), SHARES, class_dropout=0.1)
    assert set(rows) == {6}
    assert options(class_dropout=0.1).class_rows(DATA) == 7


def test_one_sample_is_like_it_is_among_others() -> None:
    """Which component it belongs to does not depend on the batch."""
    together = rows_of(Z[:500], None, SHARES[:1])
    assert [int(rows_of(Z[n : n + 1], None, SHARES[:1])[0]) for n in range(500)] == together.tolist()


def test_a_steered_latent_lies_in_its_sector() -> None:
    """And all together are standard normal again, where the sectors come as often as they are large."""
    turns = np.concatenate([[0.0], np.cumsum(SHARES[0])])
    turns[-1] = 1
    component = np.random.default_rng(0).choice(3, N, p=SHARES[0])
    steered = steer(Z, turns[component], turns[component + 1])
    assert (rows_of(steered, None, SHARES[:1]) == component).mean() > 0.9999  # but for rounding at an edge
    assert steered[:, 2:].tolist() == Z[:, 2:].tolist()
    assert steered.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.03)
    assert np.cov(steered.T) == pytest.approx(np.eye(4), abs=0.04)
    assert np.linalg.norm(steered[:, :2], axis=1) == pytest.approx(np.linalg.norm(Z[:, :2], axis=1), rel=1e-5)


def test_a_division_gives_samples_the_component_of_their_example() -> None:
    """The generator then finds the row that the discriminator is told; a hidden class leaves z as it is."""
    turns = np.concatenate([np.zeros((2, 1)), np.cumsum(SHARES, axis=1)], axis=1)
    division = Division(np.array([0, 2, 1, 0], np.int16), turns)
    numbers, labels = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 2])
    assert division.rows(numbers, labels).tolist() == [0, 2, 4, 6]
    z = division.latents(Z[:4], numbers, labels)
    assert rows_of(z, labels, SHARES, class_dropout=0.1).tolist() == [0, 2, 4, 6]
    assert z[3] == pytest.approx(Z[3], rel=1e-6)


@pytest.mark.parametrize("family", ["dcgan", "r3gan", "mlp"])
def test_families_take_the_component_from_z(family: str) -> None:
    """Turned into another sector the same latents give other images."""
    chosen = parse_network({"family": family, "z_dim": 4, "conditional": False, "components": 3})
    G = build_generator(chosen, DATA, 0, torch.device("cpu")).eval()
    tables = [table for name, table in G.named_parameters() if "embedding" in name]
    assert all(len(table) == 3 for table in tables)
    z = torch.tensor([[-1.0, -0.1, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5]])
    assert G.components(z, None).tolist() == [0, 1]
    assert G(z).shape == (2, 1, 8, 8)


def test_what_cannot_have_components_says_so() -> None:
    """A family that finds its latents itself, and latents without a direction."""
    with pytest.raises(ValueError, match="z_dim of 2"):
        options(z_dim=1)
    config = parse_config({"network": {"family": "vae", "components": 2}, "loss": "minimax", "budget": {"examples": 9}})
    with pytest.raises(ConfigError, match="/network/components: vae finds its latents itself"):
        check(config, DATA)


def test_components_are_bounded_over_all_classes() -> None:
    """Each of them has parameters of its own."""
    many = DATA.model_copy(update={"classes": tuple(map(str, range(200))), "examples": 10_000})
    for components, fits in ((50, True), (51, False)):
        network = {"family": "dcgan", "components": components}
        config = parse_config({"network": network, "loss": "minimax", "budget": {"examples": 9}})
        if fits:
            check(config, many)
        else:
            with pytest.raises(ConfigError, match="10,200 in all"):
                check(config, many)
