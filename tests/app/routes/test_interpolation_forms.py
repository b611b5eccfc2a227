"""Which kind of film answers: by the body, or else by the Accept header."""

from collections.abc import Iterator

import pytest
from httpx import Client, Response

from tests.app.routes.gallery import gallery


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gallery(tmp_path_factory.mktemp("gallery")) as (_, client):
        yield client


def ask(client: Client, accept: str, **body: str) -> Response:
    asked = {"model": "cats", "seeds": [1, 2], "frames": 2} | body
    return client.post("/v1/interpolations", json=asked, headers={"Accept": accept})


@pytest.mark.parametrize(
    ("accept", "body", "media_type"),
    [
        ("image/gif", {}, "image/gif"),
        ("image/png, image/*;q=0.5", {}, "image/webp"),
        ("*/*", {}, "image/webp"),
        ("image/webp", {"format": "gif"}, "image/gif"),
    ],
)
def test_the_accept_header_decides_where_the_body_does_not(
    client: Client, accept: str, body: dict[str, str], media_type: str
) -> None:
    """A body that names a format gets it, whatever the header says."""
    answer = ask(client, accept, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)


def test_a_film_that_nobody_could_show_is_not_made(client: Client) -> None:
    """406 that says which films there are."""
    answer = ask(client, "video/mp4")
    assert (answer.status_code, answer.json()["detail"]) == (
        406,
        "This answers image/webp, image/gif, none of which the Accept header takes.",
    )
