"""Samples by address, with options: enlarged, with a quality, with captions, as bare bytes."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from httpx import Client
from PIL import Image

from app.main import create_app
from app.settings import Settings
from tests.app.routes.asking import pixels, refused
from tests.app.routes.gallery import gallery
from tests.generators import publish_generator
from tests.serving import serving

CATS = "/v1/models/cats:1/samples"
GRID = "/v1/models/cats:1/grid"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gallery(tmp_path_factory.mktemp("gallery")) as (_, client):
        yield client


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """With a model `large` of 160 x 160 pixels, of which 25 times are as many as a picture may have."""
    folder = tmp_path_factory.mktemp("large")
    app = create_app(Settings(data_dir=folder / "data"))
    with serving(app) as client:
        publish_generator(app.state.database, app.state.storage, folder, "large", family="mlp", size=160)
        yield client


def got(client: Client, path: str) -> bytes:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert client.head(path).headers["etag"] == answer.headers["etag"]
    return answer.content


@pytest.mark.parametrize("model", ["cats", "ink", "glass"])
@pytest.mark.parametrize("kind", ["png", "webp", "raw"])
def test_a_scale_repeats_each_pixel(client: Client, model: str, kind: str) -> None:
    """An enlarged sample has the same pixels, each so often across and down, in every format that keeps them."""
    path = f"/v1/models/{model}:1/samples/7"
    small = pixels(got(client, f"{path}.png"))
    if kind == "raw":
        answer = client.get(f"{path}.raw?scale=3")
        shape = [int(side) for side in answer.headers["x-shape"].split(",")]
        large = np.frombuffer(answer.content, np.uint8).reshape(shape).squeeze()
    else:
        picture = Image.open(io.BytesIO(got(client, f"{path}.{kind}?scale=3")))
        large = np.asarray(picture.convert(Image.open(io.BytesIO(got(client, f"{path}.png"))).mode))
    assert np.array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))
    assert got(client, f"{path}.{kind}?scale=1") == got(client, f"{path}.{kind}")


def test_raw_bytes_are_described_by_their_headers(client: Client) -> None:
    """The shape and type stand in headers, of HEAD too, for nothing else tells them."""
    for model, channels in (("cats", 3), ("ink", 1), ("glass", 4)):
        path = f"/v1/models/{model}:1/samples/7.raw"
        answer = client.get(path)
        for headers in (answer.headers, client.head(path).headers):
            assert (headers["x-shape"], headers["x-dtype"]) == (f"8,8,{channels}", "uint8")
            assert headers["content-type"] == "application/octet-stream"
        shown = pixels(got(client, f"/v1/models/{model}:1/samples/7.png"))
        assert answer.content == shown.tobytes()


@pytest.mark.parametrize("address", [CATS + "/7.{}?scale=8", GRID + ".{}?seeds=7&columns=1&scale=8"])
@pytest.mark.parametrize("kind", ["jpg", "webp", "avif"])
def test_a_quality_changes_the_file_and_its_tag(client: Client, kind: str, address: str) -> None:
    """Each quality has bytes and an ETag of its own, the same each time, of one sample and of a grid."""
    plain = address.format(kind)
    paths = [plain, f"{plain}&quality=10", f"{plain}&quality=97"]
    answers = [client.get(path) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.content for answer in answers}) == 3
    assert len({answer.headers["etag"] for answer in answers}) == 3
    assert len(answers[1].content) < len(answers[2].content)
    assert [got(client, path) for path in paths] == [answer.content for answer in answers]
    assert {Image.open(io.BytesIO(answer.content)).size for answer in answers} == {(64, 64)}


def test_what_is_the_default_is_the_same_address(client: Client) -> None:
    """Saying what is so anyway gives the same bytes and the same ETag."""
    for one, other in (("webp", "webp?lossless=true"), ("jpg", "jpg?quality=90"), ("png", "png?lossless=true")):
        first, second = client.get(f"{CATS}/7.{one}"), client.get(f"{CATS}/7.{other}")
        assert (second.status_code, second.content) == (200, first.content)
        assert second.headers["etag"] == first.headers["etag"]
    assert got(client, f"{CATS}/7.webp?lossless=false") == got(client, f"{CATS}/7.webp?quality=80")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{CATS}/7.png?quality=50", "quality"),
        (f"{CATS}/7.raw?quality=50", "quality"),
        (f"{CATS}/7.jpg?quality=0", "quality"),
        (f"{CATS}/7.jpg?quality=101", "quality"),
        (f"{CATS}/7.jpg?quality=high", "quality"),
        (f"{CATS}/7.jpg?lossless=true", "lossless"),
        (f"{CATS}/7.png?lossless=false", "lossless"),
        (f"{CATS}/7.webp?lossless=true&quality=50", "lossless"),
        (f"{CATS}/7.png?scale=0", "scale"),
        (f"{CATS}/7.png?scale=33", "scale"),
        (f"{CATS}/7.png?scale=two", "scale"),
        (f"{CATS}/7.png?labels=true", "labels"),
        (f"{GRID}.raw", "extension"),
        (f"{GRID}.png?labels=perhaps", "labels"),
        (f"{GRID}.webp?seeds=0-255&columns=256&scale=32", "seeds"),
    ],
)
def test_options_that_do_not_fit_are_refused(client: Client, path: str, name: str) -> None:
    """A 422 that names the option."""
    refused(client.get(path), f"#/{name}")
    assert client.head(path).status_code == 422


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "avif"])
def test_a_grid_comes_as_each_kind_of_picture(client: Client, kind: str) -> None:
    """The same picture in every format, and the same bytes each time."""
    data = got(client, f"{GRID}.{kind}?seeds=0-7&columns=4")
    shown = Image.open(io.BytesIO(data)).convert("RGB")
    assert shown.size == (32, 16)
    if kind in {"png", "webp"}:
        assert np.array_equal(shown, pixels(got(client, f"{GRID}.png?seeds=0-7&columns=4")))
    assert got(client, f"{GRID}.{kind}?seeds=0-7&columns=4") == data


@pytest.mark.parametrize(("model", "lines"), [("cats", 2), ("ink", 1), ("glass", 1)])
def test_labels_are_written_under_each_sample(client: Client, model: str, lines: int) -> None:
    """Each row becomes taller by its class, if any, and its seed; samples keep their pixels."""
    path = f"/v1/models/{model}:1/grid.png?seeds=1,22&columns=1&scale=8"
    plain, captioned = pixels(got(client, path)), pixels(got(client, f"{path}&labels=true"))
    more = captioned.shape[0] // 2 - 64
    assert more > 8 * lines
    assert np.array_equal(captioned[:64], plain[:64])
    assert np.array_equal(captioned[64 + more : 128 + more], plain[64:])
    assert not np.array_equal(captioned[64 : 64 + more], captioned[128 + more :])
    assert client.head(path).headers["etag"] != client.head(f"{path}&labels=true").headers["etag"]


def test_more_pixels_than_a_picture_may_have_are_refused(large: Client) -> None:
    """A scale that makes one sample too large is refused before it is made, wherever it is asked for."""
    path = "/v1/models/large:1/samples/1.png?scale=32"
    assert "16777216" in refused(large.get(path), "#/scale")
    assert large.head(path).status_code == 422
    refused(large.get("/v1/models/large:1/grid.png?seeds=0&scale=32"), "#/seeds")
    refused(large.post("/v1/generations", json={"model": "large", "scale": 32}), "#/scale")
    assert large.get("/v1/models/large:1/samples/1.png?scale=25").status_code == 200
