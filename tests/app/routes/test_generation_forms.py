"""POST /v1/generations: streams, raw bytes, options of files, captions."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from httpx import Client

from tests.app.routes.asking import (
    JSON,
    LIMIT,
    LINES,
    MIXED,
    NPZ,
    RAW,
    ZIP,
    alone,
    ask,
    given,
    lines_of,
    parts_of,
    pixels,
    refused,
)
from tests.app.routes.gallery import CLASSES, gallery


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gallery(tmp_path_factory.mktemp("gallery"), sync_generation_limit=LIMIT) as (_, client):
        yield client


def test_lines_have_the_file_at_the_samples_own_address(client: Client) -> None:
    """A line of JSON for each, in order, whatever the batches in which they were made."""
    answer = given(client, LINES, seeds="0-149,7")
    assert answer.headers["content-type"] == LINES
    assert answer.headers["x-model-version"] == "cats:1"
    entries = lines_of(answer)
    assert [entry["seed"] for entry in entries] == [*range(150), 7]
    for entry in entries:
        assert entry["class"] in CLASSES
        assert base64.b64decode(entry["data"]) == alone(client, entry["seed"])
        assert entry.keys() == {"seed", "class", "data"}


@pytest.mark.parametrize(("format_", "kind"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("raw", "raw")])
def test_parts_have_the_file_and_its_address(client: Client, format_: str, kind: str) -> None:
    """A part for each sample, of the length that it tells; a class that is not ASCII is percent-encoded."""
    answer = given(client, MIXED, seeds="0-39", format=format_, truncation=0.5)
    parts, files = zip(*parts_of(answer), strict=True)
    assert [part["X-Seed"] for part in parts] == [str(seed) for seed in range(40)]
    assert {unquote(part["X-Class"]) for part in parts} == set(CLASSES)
    for part, data in zip(parts, files, strict=True):
        assert len(data) == int(part["Content-Length"])
        assert data == alone(client, int(part["X-Seed"]), kind, truncation=0.5)
    assert {part.get_content_type() for part in parts} == {
        "application/octet-stream" if kind == "raw" else f"image/{format_}"
    }


def test_raw_bytes_are_the_pixels(client: Client) -> None:
    """One array as it lies, of the shape and type in the headers; with a scale it is as large as it says."""
    answer = given(client, RAW, seeds="3-102")
    shape = tuple(map(int, answer.headers["x-shape"].split(",")))
    assert (shape, answer.headers["x-dtype"]) == ((100, 8, 8, 3), "uint8")
    images = np.frombuffer(answer.content, np.uint8).reshape(shape)
    for place in (0, 50, 99):
        assert np.array_equal(images[place], pixels(alone(client, 3 + place)))
    scaled = given(client, RAW, seeds="3-5", scale=3)
    assert scaled.headers["x-shape"] == "3,24,24,3"
    large = np.frombuffer(scaled.content, np.uint8).reshape(3, 24, 24, 3)
    assert np.array_equal(large[:, 1::3, 2::3], images[:3])


def test_every_form_tells_the_shape_of_bare_pixels(client: Client) -> None:
    """Whoever gets files of raw pixels in it can read them without asking for the model."""
    body = {"seeds": [3], "format": "raw", "scale": 2}
    document = given(client, **body).json()
    lines, mixed = given(client, LINES, **body), given(client, MIXED, **body)
    archive = zipfile.ZipFile(io.BytesIO(given(client, ZIP, **body).content))
    assert document["shape"] == json.loads(archive.read("manifest.json"))["shape"] == [16, 16, 3]
    ((part, data),) = parts_of(mixed)
    assert (lines.headers["x-shape"], lines.headers["x-dtype"]) == (part["X-Shape"], part["X-Dtype"])
    assert (part["X-Shape"], part["X-Dtype"], len(data)) == ("16,16,3", "uint8", 16 * 16 * 3)
    assert "x-shape" not in given(client, LINES, seeds=[3]).headers


@pytest.mark.parametrize(
    ("kind", "format_", "options"),
    [
        ("jpg", "jpeg", {"quality": 30}),
        ("webp", "webp", {"quality": 55}),
        ("webp", "webp", {"lossless": False}),
        ("webp", "webp", {"lossless": True}),
        ("avif", "avif", {"quality": 40}),
        ("png", "png", {"scale": 3}),
        ("jpg", "jpeg", {"quality": 70, "scale": 2}),
    ],
)
def test_options_of_a_file_are_those_of_its_address(
    client: Client, kind: str, format_: str, options: dict[str, Any]
) -> None:
    """quality, lossless and scale mean the same in a body as in a query, in every form that has files."""
    expected = [alone(client, seed, kind, **options) for seed in (4, 5)]
    body = {"seeds": [4, 5], "format": format_} | options
    assert [base64.b64decode(each["data"]) for each in given(client, **body).json()["samples"]] == expected
    assert [base64.b64decode(each["data"]) for each in lines_of(given(client, LINES, **body))] == expected
    assert [data for _, data in parts_of(given(client, MIXED, **body))] == expected
    archive = zipfile.ZipFile(io.BytesIO(given(client, ZIP, **body).content))
    entries = json.loads(archive.read("manifest.json"))["samples"]
    assert [archive.read(entry["file"]) for entry in entries] == expected
    assert given(client, f"image/{format_}", seed=4, **options).content == expected[0]


def test_options_that_do_not_fit_are_refused(client: Client) -> None:
    """A quality of what keeps every pixel, a scale of an npz or beyond the limit: each names its field."""
    refused(ask(client, quality=50), "#/quality")
    refused(ask(client, RAW, quality=50), "#/quality")
    refused(ask(client, format="jpeg", quality=0), "#/quality")
    refused(ask(client, format="jpeg", lossless=True), "#/lossless")
    refused(ask(client, format="webp", quality=50, lossless=True), "#/lossless")
    refused(ask(client, NPZ, scale=2), "#/scale")
    refused(ask(client, scale=33), "#/scale")
    refused(ask(client, scale=0), "#/scale")
    for accept in (LINES, MIXED, RAW, ZIP, NPZ):
        refused(ask(client, accept, layout="grid"), "#/layout")


def test_labels_stand_under_the_samples_of_a_grid(client: Client) -> None:
    """The picture is taller by a caption of each row, and the samples in it are unchanged."""
    plain = pixels(given(client, "image/png", seeds="0-3", scale=8).content)
    answer = given(client, "image/png", seeds="0-3", scale=8, labels=True)
    captioned = pixels(answer.content)
    assert captioned.shape[0] > plain.shape[0]
    assert captioned.shape[1] == plain.shape[1]
    height = captioned.shape[0] // 2
    assert np.array_equal(captioned[:64], plain[:64])
    assert np.array_equal(captioned[height : height + 64], plain[64:])
    assert captioned[64:height].any()
    in_json = given(client, seeds="0-3", scale=8, labels=True, layout="grid").json()
    assert base64.b64decode(in_json["grid"]) == answer.content
    assert client.get("/v1/models/cats:1/grid.png?seeds=0-3&scale=8&columns=2&labels=true").content == answer.content


@pytest.mark.parametrize("accept", [JSON, LINES, MIXED, ZIP, NPZ, RAW])
def test_labels_need_a_grid(client: Client, accept: str) -> None:
    """Files of single samples have no captions."""
    refused(ask(client, accept, n=2, labels=True), "#/labels")
