"""A sampler, and two models for it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.registry import Resolved
from app.sampling import Sampler
from app.settings import Settings
from app.storage import Storage
from tests.generators import store_generator
from tests.serving import app, caller, client, shared

__all__ = ["app", "caller", "client", "dcgan", "mlp", "sampler", "shared"]


@pytest.fixture
def sampler(settings: Settings, storage: Storage) -> Iterator[Sampler]:
    with closing(Sampler(settings, storage)) as sampler:
        yield sampler


@pytest.fixture
def dcgan(storage: Storage, tmp_path: Path) -> Resolved:
    """Conditional, three classes, RGB."""
    return store_generator(storage, tmp_path, "dcgan", channels=3, classes=("cat", "dog", "owl"))


@pytest.fixture
def mlp(storage: Storage, tmp_path: Path) -> Resolved:
    """Unconditional, gray."""
    return store_generator(storage, tmp_path, "mlp", family="mlp", seed=1)
