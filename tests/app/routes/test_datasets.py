"""Data sets over HTTP."""

import io
import json
import zipfile

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import Client
from PIL import Image

from app import datasets
from app.tables import Dataset
from tests.factories import make_dataset, make_job
from tests.serving import serving

DIGITS = {"source": {"kind": "builtin", "name": "digits"}}


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("cats/1.png", b"not looked at before it is prepared")
    return buffer.getvalue()


def upload(client: Client, content: bytes | None = None, headers: dict[str, str] | None = None, **fields: str):
    files = {"file": ("My cats.zip", archive() if content is None else content)}
    return client.post("/v1/datasets", files=files, data=fields, headers=headers)


def incoming(app: FastAPI) -> list[str]:
    return [path.name for path in (app.state.settings.data_dir / "incoming").iterdir()]


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


def test_an_upload_is_stored_and_prepared_later(app: FastAPI, client: Client) -> None:
    """202 with Location, the object in storage, and no trace in the folder it arrived in."""
    response = upload(client, resolution="16", fit="pad")
    assert response.status_code == 202
    body = response.json()
    assert response.headers["location"] == f"/v1/datasets/{body['id']}"
    assert (body["name"], body["status"]) == ("My-cats", "preparing")
    assert body["options"] == {"resolution": 16, "fit": "pad"}
    assert body["source"] == {"kind": "upload", "filename": "My cats.zip", "size": len(archive())}
    (key,) = stored(app)
    assert app.state.storage.get_bytes(key) == archive()
    assert incoming(app) == []


def test_a_large_upload_arrives_whole(app: FastAPI, client: Client) -> None:
    """What takes many chunks is stored byte for byte."""
    content = np.random.default_rng(0).bytes(5 * 2**20 + 17)
    assert upload(client, content).status_code == 202
    (key,) = stored(app)
    assert app.state.storage.get_bytes(key) == content


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"resolution": "0"}, "#/resolution"),
        ({"resolution": "wide"}, "#/resolution"),
        ({"resolution": "9" * 30}, "#/resolution"),
        ({"fit": "squeeze"}, "#/fit"),
        ({"name": "a/b"}, "#/name"),
        ({"name": "ds_mine"}, "#/name"),
        ({"name": "x" * 101}, "#/name"),
        ({"name": "a\x00b"}, "#/name"),
        ({"name": "x" * 5000}, "#/name"),
        ({"colour": "red"}, "#/colour"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_kept(app: FastAPI, client: Client, fields, pointer) -> None:
    """422 that points at the form's field; no row, no object, no file."""
    response = upload(client, **fields)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert client.get("/v1/datasets").json()["data"] == []
    assert stored(app) == []
    assert incoming(app) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("application/zip", b"PK"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="fit"\r\n\r\ncrop\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\ncrop\r\n--x--\r\n"),
    ],
)
def test_a_broken_form_is_refused(app: FastAPI, client: Client, content_type, body) -> None:
    """What is no form, has no file or is cut off gives 422 and leaves nothing."""
    response = client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert stored(app) == []
    assert incoming(app) == []


def test_a_second_file_is_refused(app: FastAPI, client: Client) -> None:
    """One upload is one archive."""
    files = [("file", ("a.zip", archive())), ("file", ("b.zip", archive()))]
    assert client.post("/v1/datasets", files=files).status_code == 422
    assert incoming(app) == []


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_over_the_limit_is_refused(settings, declared) -> None:
    """413 by Content-Length, and by counting when it comes in chunks without one; nothing stays."""
    from app.main import create_app

    app = create_app(settings.model_copy(update={"upload_limit_bytes": 3 * 2**20}))
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    body = head + bytes(4 * 2**20) + b"\r\n--x--\r\n"
    chunks = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    with serving(app) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = client.post("/v1/datasets", content=body if declared else chunks, headers=headers)
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"
        assert stored(app) == []
        assert incoming(app) == []


def test_the_body_limit_holds_for_json(client: Client) -> None:
    """A JSON body over its limit gives 413 before it is parsed."""
    response = client.post("/v1/jobs", content=b" " * (2**20 + 1), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


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
def test_a_bad_import_names_the_field(client: Client, body, pointer) -> None:
    """422 with a JSON pointer."""
    content, headers = json.dumps(body), {"Content-Type": "application/json"}  # httpx would not send a lone surrogate
    response = client.post("/v1/datasets/import", content=content, headers=headers)
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
def test_bad_paging_is_refused(client: Client, params) -> None:
    """422 that names the query parameter."""
    response = client.get("/v1/datasets", params=params)
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
    ("params", "status"), [({"class": "none"}, 404), ({"n": 0}, 422), ({"n": 257}, 422), ({"n": "x"}, 422)]
)
def test_bad_previews_are_refused(app: FastAPI, client: Client, params, status) -> None:
    """An unknown class is not found; a count out of range is invalid."""
    row = prepared(app)
    assert client.get(f"/v1/datasets/{row.name}/preview.png", params=params).status_code == status


def test_nothing_to_preview_yet(client: Client) -> None:
    """409 while it is being prepared."""
    client.post("/v1/datasets/import", json=DIGITS)
    response = client.get("/v1/datasets/digits/preview.png")
    assert response.status_code == 409
    assert response.json()["state"] == "preparing"


def test_a_repeated_upload_is_one_data_set(app: FastAPI, client: Client) -> None:
    """The same key and file give the first answer again; another file with that key is refused."""
    key = {"Idempotency-Key": "upload-1"}
    first = upload(client, headers=key)
    second = upload(client, headers=key)
    assert second.json() == first.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert upload(client, b"another", headers=key).json()["code"] == "idempotency_mismatch"
    assert len(client.get("/v1/datasets").json()["data"]) == 1
    assert len(stored(app)) == 1


def test_resolution_limits_are_those_of_the_preparation() -> None:
    """What the form lets through, the preparation can make."""
    from app.schemas.datasets import MAX_RESOLUTION, MIN_RESOLUTION
    from worker.data import RESOLUTIONS

    assert range(MIN_RESOLUTION, MAX_RESOLUTION + 1) == RESOLUTIONS
    assert datasets.API_STATUS["succeeded"] == "ready"
