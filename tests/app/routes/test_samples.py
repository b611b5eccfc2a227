"""Samples and grids by URL."""

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import structlog
from fastapi import FastAPI
from httpx import Client
from PIL import Image

from app import registry
from tests.app.routes.gallery import CLASSES, gallery
from tests.generators import publish_generator

CATS = "/v1/models/cats:1/samples"


@pytest.fixture(scope="module")
def app_and_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


@pytest.fixture
def app(app_and_client: tuple[FastAPI, Client]) -> FastAPI:
    return app_and_client[0]


@pytest.fixture
def client(app_and_client: tuple[FastAPI, Client]) -> Client:
    return app_and_client[1]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("extension", "media_type"),
    [("png", "image/png"), ("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("webp", "image/webp")],
)
@pytest.mark.parametrize("model", ["cats", "ink", "glass"])
def test_a_sample_comes_in_every_format(client: Client, model: str, extension: str, media_type: str) -> None:
    """Every model's samples come as each kind of file, the same bytes each time, with their address in the headers."""
    answer = client.get(f"/v1/models/{model}:1/samples/7.{extension}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert Image.open(io.BytesIO(answer.content)).size == (8, 8)
    assert answer.headers["x-seed"] == "7"
    assert answer.headers["x-model-version"] == f"{model}:1"
    assert client.get(f"/v1/models/{model}:1/samples/7.{extension}").content == answer.content


@pytest.mark.parametrize("path", [f"{CATS}/7.jpg", f"{CATS}/7.jpg?scale=2", "/v1/models/cats:1/grid.jpg"])
def test_jpg_and_jpeg_are_the_same(client: Client, path: str) -> None:
    """Both spellings of the address give the same bytes and the same ETag, the short way and by the route."""
    one, other = (client.get(path.replace(".jpg", extension)) for extension in (".jpg", ".jpeg"))
    assert (one.status_code, one.content, one.headers["etag"]) == (200, other.content, other.headers["etag"])


def test_png_and_webp_are_the_same_picture(client: Client) -> None:
    """Both are lossless: the sample is the pixels, whatever the file."""
    png, webp = (client.get(f"/v1/models/glass:1/samples/3.{kind}").content for kind in ("png", "webp"))
    assert np.array_equal(pixels(png), np.asarray(Image.open(io.BytesIO(webp)).convert("RGBA")))


def test_a_class_is_given_or_follows_from_the_seed(client: Client) -> None:
    """X-Class says which class it was, percent-encoded; asking for that one gives the same bytes, for another one others."""
    free = client.get(f"{CATS}/5.png")
    own = unquote(free.headers["x-class"])
    assert own in CLASSES
    other = next(name for name in CLASSES if name != own)
    assert client.get(f"{CATS}/5.png", params={"class": own}).content == free.content
    assert client.get(f"{CATS}/5.png", params={"class": CLASSES.index(own)}).content == free.content
    changed = client.get(f"{CATS}/5.png", params={"class": other})
    assert unquote(changed.headers["x-class"]) == other
    assert changed.content != free.content
    assert "x-class" not in client.get("/v1/models/ink/samples/5.png").headers


def test_what_is_the_same_has_one_address(client: Client) -> None:
    """HEAD, GET and 304 tell one class, given or not, and equal bytes have one ETag, for a sample and for a grid."""
    free = client.get(f"{CATS}/5.png")
    own = unquote(free.headers["x-class"])
    given = client.get(f"{CATS}/5.png", params={"class": own})
    held = client.get(f"{CATS}/5.png", headers={"If-None-Match": free.headers["etag"]})
    assert held.status_code == 304
    for answer in (given, held, client.head(f"{CATS}/5.png")):
        assert [answer.headers[name] for name in ("x-class", "etag")] == [free.headers[n] for n in ("x-class", "etag")]
    grids = [client.get("/v1/models/cats:1/grid.png", params={"seeds": "5"} | more) for more in ({}, {"class": own})]
    assert grids[0].content == grids[1].content
    assert grids[0].headers["etag"] == grids[1].headers["etag"]


def test_a_pinned_reference_is_cached_for_ever_and_a_moving_one_is_asked_again(client: Client) -> None:
    """`cats:1` is immutable; `cats` must be revalidated; both have the same strong ETag."""
    pinned, moving = client.get(f"{CATS}/1.png"), client.get("/v1/models/cats/samples/1.png")
    assert pinned.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert moving.headers["cache-control"] == "no-cache"
    assert pinned.headers["etag"] == moving.headers["etag"]
    assert pinned.headers["etag"].startswith('"')


@pytest.mark.parametrize("path", [f"{CATS}/11.png", "/v1/models/cats:1/grid.png?seeds=0-5"])
def test_what_the_client_has_is_not_made_again(
    app: FastAPI, client: Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEAD tells the ETag and If-None-Match answers 304, without a body, a length or any work by the generator."""
    with monkeypatch.context() as patch:
        patch.setattr(app.state.sampler, "stream", None)
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert (head.headers["content-type"], "content-length" in head.headers) == ("image/png", False)
        tag = head.headers["etag"]
        for held in (tag, f'"other", W/{tag}', "*"):
            unchanged = client.get(path, headers={"If-None-Match": held})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert unchanged.headers["etag"] == tag
            assert "cache-control" in unchanged.headers
    fresh = client.get(path, headers={"If-None-Match": '"other"'})
    assert (fresh.status_code, fresh.headers["etag"]) == (200, tag)


def test_every_part_of_the_address_changes_the_tag(client: Client) -> None:
    """Seed, class, truncation, format and model each have ETags of their own."""
    paths = [
        f"{CATS}/1.png",
        f"{CATS}/2.png",
        f"{CATS}/1.webp",
        f"{CATS}/1.png?class=cat",
        f"{CATS}/1.png?truncation=0.5",
    ]
    paths += [
        "/v1/models/ink/samples/1.png",
        "/v1/models/cats/grid.png?seeds=1",
        "/v1/models/cats/grid.png?seeds=1&scale=2",
    ]
    assert len({client.head(path).headers["etag"] for path in paths}) == len(paths)


def test_a_grid_is_made_of_the_very_samples(client: Client) -> None:
    """Each place of a grid has the pixels that the seed has at its own address; what is left over is black."""
    seeds = [4, 9, 10, 11, 2**63 - 1]
    answer = client.get("/v1/models/cats:1/grid.png", params={"seeds": f"4,9-11,{2**63 - 1}", "columns": 3, "scale": 2})
    grid = pixels(answer.content)
    assert grid.shape == (32, 48, 3)
    for place, seed in enumerate(seeds):
        row, column = divmod(place, 3)
        cell = grid[row * 16 : row * 16 + 16 : 2, column * 16 : column * 16 + 16 : 2]
        assert np.array_equal(cell, pixels(client.get(f"{CATS}/{seed}.png").content))
    assert not grid[16:, 32:].any()


def test_a_grid_of_one_class(client: Client) -> None:
    """With `class` every sample of a grid is of that class; by default a grid has 64 samples in 8 columns."""
    grid = pixels(client.get("/v1/models/cats/grid.png", params={"class": "cat"}).content)
    assert grid.shape == (64, 64, 3)
    assert np.array_equal(grid[:8, 8:16], pixels(client.get(f"{CATS}/1.png?class=cat").content))


BAD = {
    f"{CATS}/-1.png": (422, "seed"),
    f"{CATS}/{2**63}.png": (422, "seed"),
    f"{CATS}/{'9' * 400}.png": (422, "seed"),
    f"{CATS}/one.png": (422, "seed"),
    f"{CATS}/1.5.png": (422, "seed"),
    f"{CATS}/1.gif": (422, "extension"),
    f"{CATS}/1": (404, None),
    f"{CATS}/1.png?truncation=0": (422, "truncation"),
    f"{CATS}/1.png?truncation=1.1": (422, "truncation"),
    f"{CATS}/1.png?truncation=nan": (422, "truncation"),
    f"{CATS}/1.png?class=bird": (422, "class"),
    f"{CATS}/1.png?class=2": (422, "class"),
    f"{CATS}/1.png?class=%00": (422, "class"),
    "/v1/models/ink/samples/1.png?class=cat": (422, "class"),
    "/v1/models/none/samples/1.png": (404, None),
    "/v1/models/cats:2/samples/1.png": (404, None),
    "/v1/models/cats@prod/samples/1.png": (404, None),
    "/v1/models/ckpt_0/samples/1.png": (404, None),
    "/v1/models/job_0/samples/1.png": (404, None),
    "/v1/models/a%20b/samples/1.png": (422, "ref"),
    "/v1/models/cats/grid.png?seeds=9-3": (422, "seeds"),
    "/v1/models/cats/grid.png?seeds=0-999999999999": (422, "seeds"),
    f"/v1/models/cats/grid.png?seeds=0-{2**63}": (422, "seeds"),
    "/v1/models/cats/grid.png?seeds=-5": (422, "seeds"),
    "/v1/models/cats/grid.png?seeds=x": (422, "seeds"),
    "/v1/models/cats/grid.png?seeds=": (422, "seeds"),
    "/v1/models/cats/grid.png?seeds=0-1023&scale=32": (422, "seeds"),
    "/v1/models/cats/grid.png?columns=0": (422, "columns"),
    "/v1/models/cats/grid.png?scale=1000": (422, "scale"),
}


@pytest.mark.parametrize(("path", "expected"), BAD.items())
def test_bad_input_is_a_clear_refusal(client: Client, path: str, expected: tuple[int, str | None]) -> None:
    """Nonsense is a 4xx problem that names the parameter, for GET and HEAD."""
    status, name = expected
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    if name is not None:
        assert answer.json()["errors"][0]["pointer"] == f"#/{name}"
    assert client.head(path).status_code == status


def test_a_fault_of_ours_is_no_busy_service(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a network raises by mistake is 500, with its traceback in the log, and the next request is served."""
    from models.generator import LoadedGenerator

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as lines:
        patch.setattr(LoadedGenerator, "generate", lambda *_: {}["bias"])
        answer = httpx.get(f"{client.base_url}{CATS}/77.png", trust_env=False)  # uvicorn closes this connection
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    (line,) = [line for line in lines if line["event"] == "unexpected error"]
    assert isinstance(line["exc_info"], KeyError)
    assert client.get(f"{CATS}/77.png").status_code == 200


def test_an_unknown_class_lists_the_classes(client: Client) -> None:
    """The refusal says what there is."""
    assert ", ".join(CLASSES) in client.get(f"{CATS}/1.png?class=bird").json()["detail"]


def test_a_deleted_version_is_gone_and_a_moved_alias_counts_at_once(
    app: FastAPI, client: Client, tmp_path: Path
) -> None:
    """410 after deletion, though the generator is still loaded; an alias answers for its new version with the next request."""
    database = app.state.database
    publish_generator(database, app.state.storage, tmp_path, "brief", seed=5)
    with database.writing() as session:
        registry.put_alias(session, "cats", "prod", 1)
    assert client.get("/v1/models/cats@prod/samples/1.png").headers["x-model-version"] == "cats:1"
    assert client.get("/v1/models/brief:1/samples/1.png").status_code == 200
    with database.writing() as session:
        registry.delete(session, "brief:1")
    for path in ("samples/1.png", "grid.png"):
        assert client.get(f"/v1/models/brief:1/{path}").status_code == 410


def test_keys_keep_samples_out_of_shared_caches(tmp_path: Path) -> None:
    """With API keys samples are for the caller alone, and still for ever."""
    with gallery(tmp_path, api_keys=("a" * 32,)) as (_, client):
        assert client.head(f"{CATS}/1.png").status_code == 401
        key = {"Authorization": f"Bearer {'a' * 32}"}
        assert (
            client.head(f"{CATS}/1.png", headers=key).headers["cache-control"] == "private, max-age=31536000, immutable"
        )
        moving = client.head("/v1/models/cats/samples/1.png", headers=key)
        assert moving.headers["cache-control"] == "private, no-cache"
