"""What references mean, remembered for less than a second."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import Client

from app.http.references import LASTING_SECONDS
from app.main import create_app
from tests.app.routes.gallery import gallery
from tests.generators import publish_generator
from tests.serving import serving


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


def version(client: Client, ref: str) -> str:
    return client.head(f"/v1/models/{ref}/samples/1.png").headers["x-model-version"]


def test_what_this_process_changes_counts_at_once(running: tuple[FastAPI, Client]) -> None:
    """Every answer after a PUT names what the alias was moved to, though it was asked for a moment ago."""
    _, client = running
    client.put("/v1/models/cats/aliases/now", json={"version": 1})
    assert version(client, "cats@now") == "cats:1"
    client.delete("/v1/models/cats/aliases/now")
    assert client.head("/v1/models/cats@now/samples/1.png").status_code == 404


def test_what_another_process_changes_counts_within_a_second(running: tuple[FastAPI, Client], tmp_path: Path) -> None:
    """A new version, a moved alias and a deletion are seen there soon, under requests without a pause too."""
    app, client = running
    with serving(create_app(app.state.settings)) as other:
        publish_generator(app.state.database, app.state.storage, tmp_path, "moved", seed=5)
        client.put("/v1/models/cats/aliases/prod", json={"version": 1})
        assert version(other, "cats@prod") == "cats:1"
        client.delete("/v1/models/cats/aliases/prod")
        client.delete("/v1/models/moved:1")
        changed = time.monotonic()
        while other.head("/v1/models/cats@prod/samples/1.png").status_code != 404:
            assert time.monotonic() - changed < LASTING_SECONDS + 5  # of a machine that is busy with other tests
        assert other.head("/v1/models/moved:1/samples/1.png").status_code == 410


def test_it_is_read_again_beside_the_requests(running: tuple[FastAPI, Client]) -> None:
    """A reference that is in use is never forgotten: after its time it was read anew, and requests did not wait for it."""
    app, client = running
    version(client, "ink")
    first = app.state.references._known["ink"]
    until = time.monotonic() + 3 * LASTING_SECONDS
    while time.monotonic() < until:
        version(client, "ink")
        time.sleep(0.05)
    known = app.state.references._known["ink"]
    assert known.read_at > first.read_at
    assert known.resolved == first.resolved
