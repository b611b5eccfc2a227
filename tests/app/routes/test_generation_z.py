"""POST /v1/generations with the caller's own latent vectors, and with theirs given back."""

import base64
import io
import json
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from httpx import Client, Response
from numpy.lib import format as npy

from app.errors import Invalid
from app.http.orders import latents_of
from app.schemas.generations import GenerationRequest
from models.randomness import sample_latents
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
from tests.app.routes.gallery import gallery
from tests.app.routes.latent_files import BAD_Z, FINE, Z_DIM, archived, as_npz


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gallery(tmp_path_factory.mktemp("gallery"), sync_generation_limit=LIMIT) as (_, client):
        yield client


def returned(answer: Response, accept: str) -> np.ndarray:
    """The z of an answer, as an application would read it."""
    if accept == NPZ:
        return np.load(io.BytesIO(answer.content), allow_pickle=False)["z"]
    if accept == ZIP:
        return np.load(io.BytesIO(zipfile.ZipFile(io.BytesIO(answer.content)).read("z.npy")), allow_pickle=False)
    entries = answer.json()["samples"] if accept == JSON else lines_of(answer)
    return np.stack([np.frombuffer(base64.b64decode(entry["z"]), "<f4") for entry in entries])


@pytest.mark.parametrize("accept", [JSON, LINES, ZIP, NPZ])
@pytest.mark.parametrize("model", ["cats", "ink"])
def test_z_given_back_is_the_same_sample(client: Client, model: str, accept: str) -> None:
    """What return_z gives makes the very pixels of its seed, as lists of numbers and as an npz."""
    seeds = [*range(30), 2**63 - 1]
    made = given(client, accept, model=model, seeds=seeds, truncation=0.7, return_z=True)
    z = returned(made, accept)
    z_dim = z.shape[1]
    assert (z.shape[0], z.dtype) == (len(seeds), np.float32)
    assert np.array_equal(z, sample_latents(seeds, z_dim) * np.float32(0.7))
    expected = np.load(io.BytesIO(given(client, NPZ, model=model, seeds=seeds, truncation=0.7).content))
    classes = {"classes": expected["classes"].tolist()} if model == "cats" else {}
    fortran = np.asfortranarray(z)
    for again in (z.tolist(), as_npz(z=z), as_npz(z=fortran, other=np.zeros(3))):
        answer = given(client, NPZ, model=model, z=again, return_z=True, **classes)
        arrays = np.load(io.BytesIO(answer.content))
        assert np.array_equal(arrays["images"], expected["images"])
        assert np.array_equal(arrays["classes"], expected["classes"])
        assert np.array_equal(arrays["z"], z)
        assert set(arrays["seeds"].tolist()) == {-1}
        pictures = given(client, model=model, z=again, **classes).json()["samples"]
        assert [each["seed"] for each in pictures] == [None] * len(seeds)
        shown = pixels(base64.b64decode(pictures[-1]["data"]))
        assert np.array_equal(shown.reshape(8, 8, -1), expected["images"][-1])


def test_z_comes_in_every_form(client: Client) -> None:
    """Pictures, grids, parts, lines and archives are made of the caller's own z as well; there is no seed to tell."""
    z = sample_latents([1, 2, 3, 4, 5], Z_DIM).tolist()
    body = {"z": z, "class": "cat"}
    one = given(client, "image/png", **body | {"z": z[:1]})
    assert "x-seed" not in one.headers
    assert np.array_equal(pixels(one.content), pixels(alone(client, 1, **{"class": "cat"})))
    grid = pixels(given(client, "image/png", **body).content)
    assert np.array_equal(grid[8:, :8], pixels(alone(client, 4, **{"class": "cat"})))
    assert pixels(given(client, "image/png", labels=True, **body).content).shape[0] > grid.shape[0]
    files = [base64.b64decode(entry["data"]) for entry in lines_of(given(client, LINES, **body))]
    parts = parts_of(given(client, MIXED, **body))
    assert not any("X-Seed" in head for head, _ in parts)
    assert [data for _, data in parts] == files
    archive = zipfile.ZipFile(io.BytesIO(given(client, ZIP, **body).content))
    entries = json.loads(archive.read("manifest.json"))["samples"]
    assert [archive.read(entry["file"]) for entry in entries] == files
    raw = np.frombuffer(given(client, RAW, **body).content, np.uint8).reshape(5, 8, 8, 3)
    assert np.array_equal(raw, [pixels(file) for file in files])


@pytest.mark.parametrize("accept", [MIXED, RAW, "image/png"])
def test_there_is_no_place_for_z_in_a_picture(client: Client, accept: str) -> None:
    """return_z is refused where the form of the answer could not hold it."""
    refused(ask(client, accept, seed=1, return_z=True), "#/return_z")


def test_a_conditional_model_needs_a_class_beside_z(client: Client) -> None:
    """A seed stands for a class, and z does not: the refusal says so; classes must be as many as rows."""
    z = np.zeros((2, Z_DIM)).tolist()
    assert "class" in refused(ask(client, z=z), "#/class")
    refused(ask(client, z=z, classes=["cat"]), "#/classes")
    refused(ask(client, z=z, **{"class": "bird"}), "#/class")
    refused(ask(client, model="ink", z=z, **{"class": "cat"}), "#/class")


@pytest.mark.parametrize("field", ["n", "seed", "seeds"])
def test_z_and_seeds_contradict_each_other(client: Client, field: str) -> None:
    """Whoever gives both is told which one is too many."""
    values = {"n": 1, "seed": 1, "seeds": "1"}
    refused(ask(client, z=np.zeros((1, Z_DIM)).tolist(), **{"class": "cat", field: values[field]}), f"#/{field}")


@pytest.mark.parametrize("z", BAD_Z.values(), ids=BAD_Z)
@pytest.mark.parametrize("accept", [JSON, RAW])
def test_a_bad_z_is_a_clear_refusal(client: Client, accept: str, z: Any) -> None:
    """Of the wrong shape, type or value, damaged, or made to harm: a short 422 that names z."""
    refused(ask(client, accept, z=z, **{"class": "cat"}), "#/z")


def test_a_damaged_npz_never_breaks_the_service(client: Client) -> None:
    """Whichever byte of it is another, the answer is samples or a refusal of z."""
    whole = base64.b64decode(FINE)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x81
        answer = ask(client, RAW, z=base64.b64encode(damaged).decode(), **{"class": "cat"})
        if answer.status_code != 200:
            refused(answer, "#/z")


def test_no_more_is_unpacked_than_it_says() -> None:
    """The memory of a bomb is that of the size that it claims."""
    body = GenerationRequest(model="cats", z=BAD_Z["a bomb that says it is small"])
    tracemalloc.start()
    try:
        with pytest.raises(Invalid):
            latents_of(body, Z_DIM, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_refusal_of_the_size_says_what_is_taken(client: Client) -> None:
    """The header counts apart from the numbers."""
    allowed = LIMIT * Z_DIM * 4
    detail = refused(ask(client, z=archived(bytes(allowed + 4097)), **{"class": "cat"}), "#/z")
    assert f"it may have {allowed} and a header of 4096" in detail
    detail = refused(ask(client, z=archived(bytes(allowed + 4096)), **{"class": "cat"}), "#/z")
    assert "it may have" not in detail


def test_older_and_newer_headers_are_read(client: Client) -> None:
    """An npz that was saved in another version of the format is as good, and numpy's compressed kind too."""
    z = sample_latents([1], Z_DIM)
    expected = given(client, RAW, z=z.tolist(), **{"class": "cat"}).content
    for version in ((1, 0), (2, 0), (3, 0)):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            npy.write_array(file, z, version)
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            again = archived(file.getvalue(), compression=compression)
            assert given(client, RAW, z=again, **{"class": "cat"}).content == expected
