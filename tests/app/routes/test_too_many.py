"""Who asks for too many samples is told what the most is, of what, and the way out."""

from collections.abc import Iterator

import pytest
from httpx import Client, Response

from tests.app.routes.gallery import gallery

LIMIT = 20  # of samples in one answer
BATCH_LIMIT = 30
MANY = f"0-{LIMIT}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("gallery")
    with gallery(folder, sync_generation_limit=LIMIT, batch_limit=BATCH_LIMIT) as (_, client):
        yield client


def check(answer: Response, pointer: str, says: str) -> None:
    assert (answer.status_code, answer.json()["detail"]) == (422, says)
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"n": LIMIT + 1}, "#/n"),
        ({"n": LIMIT + 1, "seed": 5}, "#/n"),
        ({"seeds": MANY}, "#/seeds"),
        ({"seeds": [7] * 21}, "#/seeds"),
    ],
)
def test_generations(client: Client, body: dict[str, object], pointer: str) -> None:
    """However they are named; a batch makes more."""
    says = "21 samples were asked for, and one request may ask for 20 at most: ask several times, or make a batch with POST /v1/batches."
    check(client.post("/v1/generations", json={"model": "cats"} | body), pointer, says)


def test_latent_vectors(client: Client) -> None:
    """No batch is made of them."""
    answer = client.post("/v1/generations", json={"model": "ink", "z": [[0.0] * 16] * (LIMIT + 1)})
    check(answer, "#/z", "z has 21 rows, and one request may ask for 20 samples at most: ask several times.")


def test_grids(client: Client) -> None:
    """No batch is one."""
    answer = client.get("/v1/models/cats:1/grid.png", params={"seeds": MANY})
    check(answer, "#/seeds", "21 samples were asked for, and one grid shows 20 at most: ask for several grids.")


def test_films(client: Client) -> None:
    """They have a sample for each frame, which nobody counted out."""
    says = "This would be a film of 41 frames, and one request may ask for 20 samples at most: ask for fewer frames, or give fewer seeds."
    query = {"seeds": "1-3", "frames": 20}
    check(client.get("/v1/models/cats:1/interpolation.webp", params=query), "#/frames", says)
    check(client.post("/v1/interpolations", json={"model": "cats"} | query), "#/frames", says)


def test_batches(client: Client) -> None:
    """Their limit is their own."""
    answer = client.post("/v1/batches", json={"model": "cats", "seeds": f"0-{BATCH_LIMIT}"})
    check(answer, "#/seeds", "31 samples were asked for, and one batch has 30 at most: make several batches.")


def test_none_at_all(client: Client) -> None:
    """An empty list, and an empty text."""
    none = client.post("/v1/generations", json={"model": "cats", "seeds": []})
    check(none, "#/seeds", "No sample was asked for: ask for one at least.")
    says = "No seed is given: seeds are whole numbers from 0 on, written like 0-63,70."
    check(client.post("/v1/generations", json={"model": "cats", "seeds": ""}), "#/seeds", says)
    check(client.get("/v1/models/cats:1/grid.png", params={"seeds": ""}), "#/seeds", says)
    check(client.post("/v1/batches", json={"model": "cats", "seeds": ""}), "#/seeds", says)
