"""Data sets over HTTP."""

import base64
import io
import json

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import Client
from PIL import Image

from app.tables import Dataset
from tests.factories import make_dataset, make_job

DIGITS = {"source": {"kind": "builtin", "name": "digits"}}


def stored(app: FastAPI) -> list[str]:
    return list(app.state.storage.list("datasets"))


def prepared(app: FastAPI, **columns) -> Dataset:
    """A ready data set of 20 real arrays, one class after the other."""
    examples = np.repeat(np.arange(20, dtype=np.uint8), 64).reshape(20, 8, 8, 1)
    with app.state.database.writing() as session:
        row = make_dataset(session, examples=20, classes=[{"name": n, "count": 10} for n in ("low", "high")], **columns)
    for name, array in (("examples", examples), ("labels", np.arange(20) // 10)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        app.state.storage.put_bytes(f"{row.key}/{name}.npy", buffer.getvalue())
    return row


def test_the_body_limit_holds_for_json(client: Client) -> None:
    """A JSON body over its limit gives 413 before it is parsed."""
    response = client.post("/v1/jobs", content=b" " * (2**20 + 1), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


@pytest.mark.parametrize(
    "key", [[1.0, "\0"], [1.0, "\ud800"], [float("nan"), "x"], [1e308, "x" * 200], [1, "x"], [[]], {}, None]
)
def test_forged_cursors(caller: Client, key) -> None:
    """Whatever a cursor holds, it gives a page or is refused."""
    cursor = base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")
    for path in ("/v1/datasets", "/v1/jobs", "/v1/models"):
        assert caller.get(path, params={"cursor": cursor}).status_code in {200, 422}


def test_import_is_named_like_its_source(client: Client) -> None:
    """Without a name, digits is called digits, and a second one digits-2; a name that is taken gives 409."""
    names = [client.post("/v1/datasets/import", json=DIGITS).json()["name"] for _ in range(2)]
    assert names == ["digits", "digits-2"]
    response = client.post("/v1/datasets/import", json=DIGITS | {"name": "digits"})
    assert response.status_code == 409
    assert response.json()["errors"][0]["pointer"] == "#/name"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/source"),
        ({"source": {"kind": "url", "name": "digits"}}, "#/source/kind"),
        ({"source": {"kind": "builtin", "name": "cats"}}, "#/source/name"),
        ({"source": {"kind": "builtin", "name": "digits", "size": 1}}, "#/source/size"),
        (DIGITS | {"name": ""}, "#/name"),
        (DIGITS | {"name": "a\x00"}, "#/name"),
        (DIGITS | {"name": "\ud800"}, "#/name"),
        (DIGITS | {"name": 5}, "#/name"),
    ],
)
def test_a_bad_import_names_the_field(caller: Client, body, pointer) -> None:
    """422 with a JSON pointer."""
    content, headers = json.dumps(body), {"Content-Type": "application/json"}  # httpx would not send a lone surrogate
    response = caller.post("/v1/datasets/import", content=content, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


def test_lists_come_in_pages(client: Client) -> None:
    """next_cursor leads through all, newest first, and is null on the last page."""
    made = [client.post("/v1/datasets/import", json=DIGITS).json()["id"] for _ in range(5)]
    found, cursor = [], {}
    while cursor is not None:
        page = client.get("/v1/datasets", params={"limit": 2, **cursor}).json()
        found += [row["id"] for row in page["data"]]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    assert found == made[::-1]


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 101}, {"limit": "9" * 40}, {"cursor": "x"}, {"cursor": "x" * 600}]
)
def test_bad_paging_is_refused(caller: Client, params) -> None:
    """422 that names the query parameter."""
    response = caller.get("/v1/datasets", params=params)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"#/{next(iter(params))}"
    assert response.json()["errors"][0]["in"] == "query"


def test_looking_and_deleting(app: FastAPI, client: Client) -> None:
    """By id and by name; deleted, its id is gone (410), its name unknown (404) and its objects are removed."""
    row = prepared(app)
    shown = client.get(f"/v1/datasets/{row.name}").json()
    assert shown == client.get(f"/v1/datasets/{row.id}").json()
    assert (shown["status"], shown["resolution"], shown["examples"]) == ("ready", 8, 20)
    assert shown["classes"] == [{"name": "low", "count": 10}, {"name": "high", "count": 10}]
    assert client.delete(f"/v1/datasets/{row.name}").status_code == 204
    assert client.get(f"/v1/datasets/{row.id}").status_code == 410
    assert client.get(f"/v1/datasets/{row.name}").status_code == 404
    assert stored(app) == []


def test_a_data_set_in_use_stays(app: FastAPI, client: Client) -> None:
    """409 in_use while an unfinished job needs it."""
    with app.state.database.writing() as session:
        job = make_job(session)
    response = client.delete(f"/v1/datasets/{job.dataset_id}")
    assert response.status_code == 409
    assert response.json()["code"] == "in_use"


def test_preview_shows_real_examples(app: FastAPI, client: Client) -> None:
    """A PNG grid of the class that was asked for, enlarged, with an ETag that gives 304."""
    row = prepared(app)
    response = client.get(f"/v1/datasets/{row.name}/preview.png", params={"n": 4, "class": "high"})
    assert response.status_code == 200
    image = np.asarray(Image.open(io.BytesIO(response.content)))
    assert image.shape == (128, 128)
    assert image.min() >= 10
    again = client.get(response.request.url, headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize(
    ("params", "status"), [({"class": "none"}, 422), ({"n": 0}, 422), ({"n": 257}, 422), ({"n": "x"}, 422)]
)
def test_bad_previews_are_refused(app: FastAPI, client: Client, params, status) -> None:
    """An unknown class and a count out of range are invalid, and the parameter is named."""
    row = prepared(app)
    response = client.get(f"/v1/datasets/{row.name}/preview.png", params=params)
    assert response.status_code == status
    (error,) = response.json()["errors"]
    assert (error["in"], error["pointer"]) == ("query", f"#/{next(iter(params))}")


def test_nothing_to_preview_yet(client: Client) -> None:
    """409 while it is being prepared."""
    client.post("/v1/datasets/import", json=DIGITS)
    response = client.get("/v1/datasets/digits/preview.png")
    assert response.status_code == 409
    assert response.json()["state"] == "preparing"
