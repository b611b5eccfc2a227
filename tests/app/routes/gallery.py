"""A running application with three published models: `cats` (conditional, RGB), `ink` (gray), `glass` (RGBA)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.generators import publish_generator
from tests.serving import serving

CLASSES = ["cat", "Käfer"]


@contextmanager
def gallery(folder: Path, **options: object) -> Iterator[tuple[FastAPI, httpx.Client]]:
    """Runs it in this folder; `options` are settings."""
    app = create_app(Settings(data_dir=folder / "data", **options))  # type: ignore[arg-type]
    with serving(app) as client:
        state = app.state
        publish_generator(state.database, state.storage, folder, "cats", channels=3, classes=CLASSES)
        publish_generator(state.database, state.storage, folder, "ink", family="mlp", seed=1)
        publish_generator(state.database, state.storage, folder, "glass", channels=4, seed=2)
        yield app, client
