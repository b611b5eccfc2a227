"""The counter-based generator: known answers, golden latents, and independence from everything but its arguments."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.randomness import (
    Purpose,
    normals,
    permutation,
    philox,
    sample_class,
    sample_classes,
    sample_latents,
    shuffled,
    uniform_bits,
)

# Random123 1.14, kat_vectors: philox4x32, 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEEDS = st.integers(0, 2**63 - 1)


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint64)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: str, key: str, answer: str) -> None:
    """Philox4x32-10 agrees with the vectors that its authors published."""
    np.testing.assert_array_equal(philox(words(counter), words(key)), words(answer))


def test_latents_of_a_seed_never_change() -> None:
    """These latents are the address of images that people keep; bit for bit."""
    golden = [
        ["0x1.83b3360000000p+0", "-0x1.24c3040000000p+0", "-0x1.d665180000000p-3"],
        ["-0x1.2041a60000000p+0", "0x1.b44bf20000000p-2", "-0x1.abd19a0000000p+0"],
    ]
    latents = sample_latents([0, 2**63 - 1], 3)
    assert [[float(v).hex() for v in row] for row in latents] == golden


def test_classes_of_a_seed_never_change() -> None:
    """Which class a seed stands for, when none is asked for, is part of its address too."""
    assert sample_classes(range(12), 10).tolist() == [8, 7, 3, 8, 4, 5, 5, 1, 3, 7, 9, 0]


@given(st.lists(SEEDS, min_size=1, max_size=20), st.integers(1, 70))
def test_a_seed_does_not_see_its_company(seeds: list[int], z_dim: int) -> None:
    """Each row is what the seed gives alone, in any batch and at any length."""
    together = sample_latents(seeds, z_dim)
    for seed, row in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(sample_latents([seed], z_dim + 3)[0, :z_dim], row)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_training_latents_do_not_depend_on_the_batch(n: int) -> None:
    """Example number 100 gets the same latents in a batch of 1, 7 or 64."""
    batch = normals(5, np.arange(100, 100 + n), Purpose.LATENT, 16)
    np.testing.assert_array_equal(batch[0], normals(5, 100, Purpose.LATENT, 16)[0])


def test_streams_differ() -> None:
    """Another seed, index or purpose gives other numbers."""
    streams = [
        normals(seed, index, purpose, 8).tobytes()
        for seed in (0, 1, 2**32)
        for index in (0, 1, 2**32)
        for purpose in (Purpose.LATENT, Purpose.GRID)
    ]
    assert len(set(streams)) == len(streams)


def test_normals_are_normal() -> None:
    """Mean 0, variance 1, kurtosis 3, no correlation between neighbours, and nothing beyond what 32 bits can say."""
    values = normals(3, np.arange(4000), Purpose.LATENT, 64).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.02
    assert abs((values**4).mean() - 3) < 0.1
    assert abs((values[:, :-1] * values[:, 1:]).mean()) < 0.01
    assert np.abs(values).max() < 6.8


@given(SEEDS, st.integers(0, 2**40), st.integers(1, 200))
def test_an_epoch_visits_every_example_once(seed: int, epoch: int, n: int) -> None:
    """The order of an epoch is a permutation."""
    assert sorted(permutation(seed, epoch, n)) == list(range(n))


def test_what_is_shuffled_never_changes() -> None:
    """Figures are compared over years, and so are the images that they were taken from."""
    assert shuffled(0, 2**32, Purpose.SUBSET, 60_000)[:4].tolist() == [12_340, 55_958, 26_473, 16_903]
    assert sorted(shuffled(7, 1, Purpose.SUBSET, 1_000)) == list(range(1_000))


def test_epochs_differ() -> None:
    """Each epoch has an order of its own."""
    assert permutation(0, 0, 100).tolist() != permutation(0, 1, 100).tolist()


@given(st.integers(1, 1000))
def test_classes_are_in_range(n_classes: int) -> None:
    """A class is one of those that exist."""
    classes = sample_classes(range(50), n_classes)
    assert classes.dtype == np.int64
    assert classes.min() >= 0
    assert classes.max() < n_classes


@given(st.integers(0, 2**63 - 1), st.integers(1, 1000))
def test_one_seed_has_the_class_that_it_has_among_many(seed: int, n_classes: int) -> None:
    """The shorter way for a single seed comes to the same."""
    assert sample_class(seed, n_classes) == sample_classes([seed, 1], n_classes)[0]


def test_bits_are_what_was_asked_for() -> None:
    """Rows and columns follow the arguments, also where four do not divide them."""
    assert uniform_bits([1, 2, 3], 0, Purpose.SAMPLE, 5).shape == (3, 5)
    assert uniform_bits(1, [1, 2], Purpose.SAMPLE, 4).dtype == np.uint32


def test_global_generators_are_left_alone() -> None:
    """Neither torch's nor numpy's own generator is used or changed."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    sample_latents([1, 2], 8)
    permutation(1, 2, 100)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002
