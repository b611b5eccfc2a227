"""Models over HTTP: references, aliases, deletion, downloads."""

import hashlib

import pytest
from fastapi import FastAPI
from httpx import Client

from app import jobs, registry
from app.jobs import history
from tests.factories import claimed, make_job, new_checkpoint

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def digits(app: FastAPI, client: Client) -> list[str]:
    """Versions 1 and 2 of the model `digits`, from the two checkpoints whose ids it gives."""
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session, request={"model": "digits"}))
        for seen in (320, 640):
            jobs.record_checkpoint(
                session, job.id, job.fence, new_checkpoint(job, seen, sha256=sha256, size=len(WEIGHTS))
            )
        rows = sorted(history.checkpoints(session, job.id), key=lambda row: row.examples_seen)
        for row in rows:
            registry.publish_checkpoint(session, row.id)
            for name in registry.SNAPSHOT_FILES:
                app.state.storage.put_bytes(f"{row.snapshot_key}/{name}", WEIGHTS)
        return [row.id for row in rows]


def test_every_kind_of_reference(digits: list[str], client: Client) -> None:
    """Name, version, alias, checkpoint and job each say which snapshot they mean, and whether for ever."""
    client.put("/v1/models/digits/aliases/prod", json={"version": 1})
    job = client.get("/v1/jobs/latest").json()["id"]
    expected = {
        "digits": ("digits:2", False),
        "digits:1": ("digits:1", True),
        "digits@prod": ("digits:1", False),
        digits[0]: (digits[0], True),
        job: (digits[1], False),
    }
    for ref, (version, pinned) in expected.items():
        found = client.get(f"/v1/models/{ref}").json()
        assert (found["ref"], found["version"], found["pinned"]) == (ref, version, pinned)
    model = client.get("/v1/models/digits").json()["model"]
    assert [version["ref"] for version in model["versions"]] == ["digits:2", "digits:1"]
    assert model["aliases"] == {"prod": 1}
    assert client.get("/v1/models").json() == {"data": [model], "next_cursor": None}
    assert client.get(f"/v1/models/{digits[0]}").json()["model"] is None


@pytest.mark.parametrize(
    "ref",
    [
        "cats",
        "digits:3",
        "digits:99999999999999999999",
        "digits@none",
        "ckpt_0",
        "job_0",
        "digits:",
        "@",
        ":1",
        "a:b",
        "a b",
        "%00",
    ],
)
def test_unknown_references(digits: list[str], client: Client, ref: str) -> None:
    """404, or 422 for what can be no reference, in every operation; never more."""
    for path in (f"/v1/models/{ref}", f"/v1/models/{ref}/download"):
        assert client.get(path).status_code in {404, 422}
    assert client.delete(f"/v1/models/{ref}").status_code in {404, 422}


def test_a_model_whose_first_job_is_under_way(app: FastAPI, client: Client) -> None:
    """By name, version or alias, for itself, its samples or a download: 404 with the id of the job, and the same words."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session, request={"model": "digits"}))
    answers = [
        client.get(f"/v1/models/{ref}{part}")
        for ref in ("digits", "digits:1", "digits@prod")
        for part in ("", "/samples/7.png", "/grid.png", "/download")
    ]
    answers.append(client.post("/v1/generations", json={"model": "digits:1", "n": 2}))
    answers.append(client.put("/v1/models/digits/aliases/prod", json={"version": 1}))
    assert {answer.status_code for answer in answers} == {404}
    (detail,) = {answer.json()["detail"] for answer in answers}
    assert f"{job.id}, which is running, is to make it" in detail


def test_aliases_move(digits: list[str], client: Client) -> None:
    """PUT is idempotent and moves; what an alias points at cannot be deleted; DELETE gives 404 the second time."""
    url = "/v1/models/digits/aliases/prod"
    for version in (1, 2, 2):
        response = client.put(url, json={"version": version})
        assert (response.status_code, response.json()["ref"]) == (200, "digits@prod")
        assert client.get("/v1/models/digits@prod").json()["version"] == f"digits:{version}"
    held = client.delete("/v1/models/digits:2")
    assert (held.status_code, held.json()["code"]) == (409, "in_use")
    assert [client.delete(url).status_code for _ in range(2)] == [204, 404]
    assert client.delete("/v1/models/digits:2").status_code == 204


@pytest.mark.parametrize(
    ("alias", "body", "status"),
    [
        ("prod", {"version": 9}, 404),
        ("prod", {"version": 0}, 422),
        ("prod", {"version": 2**63}, 422),
        ("prod", {"version": "1"}, 422),
        ("prod", {}, 422),
        ("latest", {"version": 1}, 422),
        ("x" * 41, {"version": 1}, 422),
        ("job_1", {"version": 1}, 422),
    ],
)
def test_bad_aliases(digits: list[str], client: Client, alias, body, status) -> None:
    """Unknown versions are not found; what cannot be an alias is invalid."""
    assert client.put(f"/v1/models/digits/aliases/{alias}", json=body).status_code == status


def test_deleting(app: FastAPI, digits: list[str], client: Client) -> None:
    """A deleted version is gone (410) and its number is not given again; its objects stay while its checkpoint does."""
    assert client.delete("/v1/models/digits:2").status_code == 204
    assert client.get("/v1/models/digits:2").status_code == 410
    assert client.get("/v1/models/digits").json()["version"] == "digits:1"
    assert client.get(f"/v1/models/{digits[1]}/download").content == WEIGHTS
    assert client.delete("/v1/models/digits").status_code == 204
    assert client.get("/v1/models/digits").status_code == 410
    assert client.delete(f"/v1/models/{digits[0]}").status_code == 422
    published = client.post(f"/v1/checkpoints/{digits[0]}/publish", json={"model": "digits"})
    assert published.json()["version"] == 3


def test_downloading(digits: list[str], client: Client) -> None:
    """The whole file; its ETag is its sha256; HEAD tells the same without it; 304 when it is held."""
    url = "/v1/models/digits:1/download"
    whole = client.get(url)
    assert whole.content == WEIGHTS
    assert whole.headers["etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert whole.headers["content-disposition"] == 'attachment; filename="digits-1.safetensors"'
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "accept-ranges", "content-type"):
        assert head.headers[name] == whole.headers[name]
    for held in (whole.headers["etag"], f"W/{whole.headers['etag']}", f'"x", {whole.headers["etag"]}', "*"):
        assert client.get(url, headers={"If-None-Match": held}).status_code == 304
    assert client.get(url, params={"format": "pickle"}).status_code == 422


SIZE = len(WEIGHTS)


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, SIZE - 1),
        ("bytes=-10", SIZE - 10, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
        (f"bytes=5-{10**15}", 5, SIZE - 1),
        (f"bytes=5-{2**64}", 5, SIZE - 1),
        (f"bytes=5-{'9' * 5000}", 5, SIZE - 1),
        (f"bytes=-{'9' * 5000}", 0, SIZE - 1),
        (f"bytes={'0' * 5000}7-{'0' * 5000}9", 7, 9),
    ],
)
def test_ranges(digits: list[str], client: Client, wanted, first, last) -> None:
    """206 with exactly the bytes that were asked for."""
    response = client.get("/v1/models/digits/download", headers={"Range": wanted})
    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.content == WEIGHTS[first : last + 1]
    assert response.headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize(
    "wanted",
    [
        f"bytes={SIZE}-",
        f"bytes={10**18}-",
        f"bytes={2**64}-",
        f"bytes={9 * 10**19}-{10**20}",
        f"bytes={'9' * 5000}-",
        f"bytes={'8' * 5000}-{'9' * 5000}",
        "bytes=-0",
        f"bytes=-{'0' * 5000}",
    ],
)
def test_ranges_outside(digits: list[str], client: Client, wanted) -> None:
    """416 that tells the size."""
    response = client.get("/v1/models/digits/download", headers={"Range": wanted})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{SIZE}"
    assert response.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "wanted", ["bytes=5-4", "bytes=-", "bytes=1-2,4-5", "items=0-1", "bytes=a-b", f"bytes={'9' * 50}-4"]
)
def test_ranges_that_mean_nothing(digits: list[str], client: Client, wanted) -> None:
    """Are ignored: 200 and the whole file."""
    response = client.get("/v1/models/digits/download", headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, WEIGHTS)


def test_a_range_of_another_file(digits: list[str], client: Client) -> None:
    """If-Range: the range when the file is still the same, else all of it."""
    url = "/v1/models/digits/download"
    etag = client.head(url).headers["etag"]
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": etag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"old"'}).status_code == 200
