"""POST /v1/generations, in every form of answer."""

import base64
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Client, Response
from PIL import Image

from app.errors import NotAcceptable
from app.http.negotiation import choose_media_type
from tests.app.routes.asking import unread, written
from tests.app.routes.gallery import CLASSES, gallery
from tests.servers import wait_until

URL = "/v1/generations"
LIMIT = 200


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gallery(tmp_path_factory.mktemp("gallery"), sync_generation_limit=LIMIT) as (_, client):
        yield client


def ask(client: Client, accept: str | None = None, **body: Any) -> Response:
    return client.post(URL, json={"model": "cats"} | body, headers={"Accept": accept} if accept else {})


def alone(client: Client, seed: int, kind: str = "png", **query: Any) -> bytes:
    answer = client.get(f"/v1/models/cats:1/samples/{seed}.{kind}", params=query)
    assert answer.status_code == 200
    return answer.content


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html, application/json;q=0.9, */*;q=0.1"])
def test_json_has_the_file_seed_and_class_of_each(client: Client, accept: str | None) -> None:
    """By default the answer is JSON, and every file in it is the one at the seed's own address."""
    answer = ask(client, accept, seed=5, n=3)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert (body["model"], body["media_type"], body["grid"]) == ("cats:1", "image/png", None)
    assert answer.headers["x-model-version"] == "cats:1"
    assert [sample["seed"] for sample in body["samples"]] == [5, 6, 7]
    for sample in body["samples"]:
        assert sample["class"] in CLASSES
        assert base64.b64decode(sample["data"]) == alone(client, sample["seed"])


def test_seeds_that_the_server_draws_can_be_asked_for_again(client: Client) -> None:
    """Without seeds they are drawn below 2**53, consecutive, and given back with the samples."""
    first = ask(client, n=4).json()["samples"]
    seeds = [sample["seed"] for sample in first]
    assert seeds == list(range(seeds[0], seeds[0] + 4))
    assert seeds[-1] < 2**53
    assert ask(client, seeds=seeds).json()["samples"] == first
    assert len(ask(client).json()["samples"]) == 1
    bare = ask(client, "application/octet-stream", n=4)
    again = ask(client, "application/octet-stream", seeds=bare.headers["x-seeds"])
    assert (again.content, again.headers["x-seeds"]) == (bare.content, bare.headers["x-seeds"])


def test_an_image_is_the_one_file(client: Client) -> None:
    """Accept names the format; X-Seed and X-Class tell its address."""
    for accept, kind in (("image/*", "png"), ("image/webp", "webp"), ("image/jpeg, */*;q=0.1", "jpg")):
        answer = ask(client, accept, seed=9)
        assert answer.content == alone(client, 9, kind)
        assert answer.headers["x-seed"] == "9"
        assert "x-class" in answer.headers
    assert ask(client, "image/*", seed=9, format="webp").content == alone(client, 9, "webp")


def test_an_image_of_many_is_a_grid(client: Client) -> None:
    """Five samples become a picture of three columns, in JSON too when a grid is asked for."""
    grid = ask(client, "image/png", seeds="1-5")
    assert pixels(grid.content).shape == (16, 24, 3)
    assert np.array_equal(pixels(grid.content)[8:, 8:16], pixels(alone(client, 5)))
    body = ask(client, seeds="1-5", layout="grid").json()
    assert base64.b64decode(body["grid"]) == grid.content
    assert [(sample["seed"], sample["data"]) for sample in body["samples"]] == [(seed, None) for seed in range(1, 6)]


def test_a_grid_has_the_columns_that_are_asked_for(client: Client) -> None:
    """They are the pixels that GET gives; where there is no grid to have them, or too large a one, the field is named."""
    grid = ask(client, "image/png", seeds="1-5", columns=5)
    assert pixels(grid.content).shape == (8, 40, 3)
    got = client.get("/v1/models/cats:1/grid.png?seeds=1-5&columns=5").content
    assert np.array_equal(pixels(got), pixels(grid.content))
    for accept, body in (
        ("application/zip", {"columns": 5}),
        ("image/png", {"columns": 0}),
        ("image/png", {"columns": 1025}),
    ):
        answer = ask(client, accept, seeds="1-5", **body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/columns")


@pytest.mark.parametrize(("format_", "kind"), [("png", "png"), ("jpeg", "jpg"), ("jpg", "jpg"), ("webp", "webp")])
def test_a_zip_holds_the_files_and_a_manifest(client: Client, format_: str, kind: str) -> None:
    """The very files of the seeds' addresses, named in a manifest; the same request gives the same bytes."""
    answer = ask(client, "application/zip", seeds="0-69,3", format=format_)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="cats-1.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["model"], len(manifest["samples"])) == ("cats:1", 71)
    assert len(archive.namelist()) == 72
    for entry in manifest["samples"][::10]:
        assert archive.read(entry["file"]) == alone(client, entry["seed"], kind, **{"class": entry["class"]})
    assert ask(client, "application/zip", seeds="0-69,3", format=format_).content == answer.content


def test_an_npz_holds_the_pixels(client: Client) -> None:
    """images, seeds and classes as arrays, readable without pickle; the same request gives the same bytes."""
    body = {"seeds": [*range(100), 2**63 - 1], "truncation": 0.7}
    answer = ask(client, "application/x-npz", **body)
    arrays = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert (arrays["images"].shape, arrays["images"].dtype) == ((101, 8, 8, 3), np.uint8)
    assert arrays["seeds"].tolist() == body["seeds"]
    assert set(arrays["classes"].tolist()) == {0, 1}
    assert np.array_equal(arrays["images"][100], pixels(alone(client, 2**63 - 1, truncation=0.7)))
    assert ask(client, "application/x-npz", **body).content == answer.content
    gray = np.load(io.BytesIO(ask(client, "application/x-npz", model="ink", n=2).content))
    assert (gray["images"].shape, gray["classes"].tolist()) == ((2, 8, 8, 1), [-1, -1])


def test_one_class_for_all_or_one_for_each(client: Client) -> None:
    """`class` and `classes` take names and indices."""
    each = ask(client, seeds=[1, 1, 1], classes=["cat", 1, "0"]).json()["samples"]
    assert [sample["class"] for sample in each] == ["cat", CLASSES[1], "cat"]
    assert each[0]["data"] == each[2]["data"] != each[1]["data"]
    same = ask(client, seeds=[1, 1], **{"class": CLASSES[1]}).json()["samples"]
    assert [sample["data"] for sample in same] == [each[1]["data"]] * 2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, "n"),
    ({"n": LIMIT + 1}, "n"),
    ({"n": "many"}, "n"),
    ({"n": 10**30}, "n"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 2**63 - 1, "n": 2}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seeds": []}, "seeds"),
    ({"seeds": [-1]}, "seeds"),
    ({"seeds": [2**63]}, "seeds"),
    ({"seeds": "5-1"}, "seeds"),
    ({"seeds": "0-999999999999"}, "seeds"),
    ({"seeds": ""}, "seeds"),
    ({"seeds": list(range(LIMIT + 1))}, "seeds"),
    ({"seeds": ["a"] * 9_000}, "seeds"),
    ({"seeds": "1", "n": 1}, "n"),
    ({"seeds": [1], "seed": 1}, "seed"),
    ({"class": "bird"}, "class"),
    ({"class": 2}, "class"),
    ({"class": True}, "class"),
    ({"classes": ["cat"], "n": 2}, "classes"),
    ({"classes": ["cat", "bird"], "n": 2}, "classes/1"),
    ({"classes": ["cat"], "class": "cat"}, "classes"),
    ({"model": "ink", "class": "cat"}, "class"),
    ({"truncation": 0}, "truncation"),
    ({"truncation": 2}, "truncation"),
    ({"format": "gif"}, "format"),
    ({"layout": "pile"}, "layout"),
    ({"model": "a b"}, "model"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("body", "name"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_a_clear_refusal(client: Client, body: dict[str, Any], name: str) -> None:
    """Nonsense is a 422 that names the field, and short."""
    answer = ask(client, **body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(f"#/{name}")
    assert len(answer.content) < 4000


def test_more_pixels_than_fit_in_memory_are_refused(tmp_path: Path) -> None:
    """In every form, before anything is made; the refusal says how many of this model one answer may have. JSON may have fewer."""
    most = 2**28 // (8 * 8 * 3)
    with gallery(tmp_path, sync_generation_limit=2 * most) as (app, client):
        for accept in ("application/json", "application/zip", "application/x-npz", "image/png"):
            answer = ask(client, accept, n=most + 1)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/n")
            own = most // 4 if accept == "application/json" else most
            assert f" {own} of this model" in answer.json()["detail"]
        assert ask(client, seeds=f"0-{most}").json()["errors"][0]["pointer"] == "#/seeds"
        assert not app.state.sampler._pipeline.started


@pytest.mark.parametrize(
    ("accept", "body", "status"),
    [
        ("text/html", {}, 406),
        ("image/gif", {}, 406),
        ("image/jpeg", {"format": "png"}, 406),
        ("application/json;q=0", {}, 406),
        ("application/json;q=0, */*", {}, 200),
        ("application/json", {"layout": "grid", "format": "raw"}, 422),
        ("application/zip", {"layout": "grid"}, 422),
        ("application/x-npz", {"layout": "grid"}, 422),
        ("image/png", {"n": 2, "layout": "separate"}, 422),
        ("image/png", {"n": 1, "layout": "separate"}, 200),
    ],
)
def test_the_form_of_the_answer_must_fit(client: Client, accept: str, body: dict[str, Any], status: int) -> None:
    """What cannot be answered in an acceptable form is refused before it is made."""
    answer = ask(client, accept, **body)
    assert answer.status_code == status
    if status == 406 and "format" in body:
        assert answer.json()["detail"].startswith(f"The format {body['format']} answers")


def test_unknown_models_are_not_found(client: Client) -> None:
    """404 for names, versions and ids that are not there."""
    for model in ("none", "cats:2", "cats@prod", "ckpt_0", "job_0"):
        assert ask(client, model=model).status_code == 404


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "a/x"),
        ("", "a/x"),
        ("*/*", "a/x"),
        ("b/*", "b/y"),
        ("a/x;q=0.1, b/z;q=0.2", "b/z"),
        ("*/*;q=0.5, a/x;q=0", "b/y"),
        ("B/Z", "b/z"),
        ("a/x;q=high, b/y;q=0.1", "b/y"),
    ],
)
def test_the_most_wanted_type_is_chosen(accept: str | None, chosen: str) -> None:
    """By quality, then by our order; a more specific range goes before a general one."""
    assert choose_media_type(accept, ["a/x", "b/y", "b/z"]) == chosen


def test_a_type_that_is_not_offered_is_refused() -> None:
    """The refusal lists what is offered."""
    with pytest.raises(NotAcceptable, match="a/x, b/y"):
        choose_media_type("c/*", ["a/x", "b/y"])


@pytest.mark.parametrize("accept", ["application/json", "application/zip", "application/x-npz"])
def test_one_who_hangs_up_frees_the_place(tmp_path: Path, accept: str) -> None:
    """A client that closes its connection, while it waits or in mid-download, gives its place to the next."""
    with gallery(tmp_path, sync_generation_limit=300_000, sampler_queue_images=10) as (app, client):
        assert ask(client).status_code == 200
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(written(accept, n=300_000))
            wait_until(lambda: app.state.sampler.admission.waiting > 0, seconds=10)
            if accept != "application/json":
                assert connection.recv(12) == b"HTTP/1.1 200"
            busy = ask(client)
            assert (busy.status_code, busy.json()["code"]) == (429, "busy")
            assert int(busy.headers["retry-after"]) >= 1
        wait_until(lambda: app.state.sampler.admission.waiting == 0, seconds=10)
        assert ask(client).status_code == 200


def test_a_slow_reader_does_not_make_others_be_refused(tmp_path: Path) -> None:
    """What lies ready for one who does not fetch it fills no queue, though it is far more than a queue takes."""
    with gallery(tmp_path, sync_generation_limit=100_000, sampler_queue_images=10) as (app, client):
        assert ask(client).status_code == 200
        with unread(client, written("application/x-npz", n=100_000)) as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"
            wait_until(lambda: app.state.sampler.admission.waiting == 0, seconds=30)
            assert app.state.sampler.admission.waiters == set()
            assert ask(client).status_code == 200


def test_an_accept_header_has_a_length(client: Client) -> None:
    """Thousands of ranges are not weighed one by one; a browser's few are."""
    with pytest.raises(NotAcceptable, match="4096"):
        choose_media_type("a," * 30_000 + "*/*", ["a/x"])
    assert choose_media_type("a/y," * 1000 + "*/*", ["a/x"]) == "a/x"
    refused = client.post("/v1/generations", json={"model": "none"}, headers={"Accept": "a," * 3000 + "*/*"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
