"""What a job leaves behind, over HTTP: metrics, grids, the film, checkpoints, publishing."""

import io
from collections.abc import Iterable

import pytest
from fastapi import FastAPI
from httpx import Client
from PIL import Image

from app import jobs
from app.paging import encode_cursor
from app.tables import Job
from tests.factories import claimed, make_checkpoint, make_job, make_job_in, new_checkpoint


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (16, 16), shade).save(buffer, "PNG")
    return buffer.getvalue()


def with_grids(app: FastAPI, seen: Iterable[int]) -> Job:
    """A running job with such grids, each of its own shade."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session))
        events = [jobs.NewEvent("grid", {"key": f"jobs/{job.id}/1/grids/{n:012d}.png"}, n, 1.0) for n in seen]
        jobs.report(session, job.id, job.fence, events)
    for n in seen:
        app.state.storage.put_bytes(f"jobs/{job.id}/1/grids/{n:012d}.png", picture(n))
    return job


def test_metrics_are_columns(app: FastAPI, client: Client) -> None:
    """Of equal length over examples_seen, with null where a value is missing; thinned and chosen on demand."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session))
        ticks = [
            jobs.NewEvent("metrics", {"loss_g": n / 2} | ({"r1": 1.0} if n % 2 else {}), n * 10, 1.0) for n in range(9)
        ]
        jobs.report(session, job.id, job.fence, ticks)
    url = f"/v1/jobs/{job.id}/metrics"
    columns = client.get(url).json()["columns"]
    assert columns["examples_seen"] == [n * 10 for n in range(9)]
    assert columns["r1"][:3] == [None, 1.0, None]
    assert set(client.get(url, params={"keys": "r1"}).json()["columns"]) == {"examples_seen", "r1"}
    few = client.get(url, params={"max_points": 3}).json()["columns"]["examples_seen"]
    assert (len(few), few[0], few[-1]) == (3, 0, 80)
    for bad in ({"max_points": 1}, {"max_points": 10**9}, {"keys": "x" * 65}):
        assert client.get(url, params=bad).status_code == 422


def test_grids_are_listed_and_served(app: FastAPI, client: Client) -> None:
    """Each has a URL that gives its PNG, with an ETag; `latest` is the newest."""
    job = with_grids(app, [64, 128])
    listed = client.get(f"/v1/jobs/{job.id}/grids").json()["data"]
    assert [grid["examples_seen"] for grid in listed] == [64, 128]
    first = client.get(listed[0]["url"])
    assert (first.content, first.headers["content-type"]) == (picture(64), "image/png")
    assert client.get("/v1/jobs/latest/grids/latest.png").content == picture(128)
    assert client.get(listed[0]["url"], headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert client.get(f"/v1/jobs/{job.id}/grids/65.png").status_code == 404
    assert client.get(f"/v1/jobs/{job.id}/grids/{10**17}.png").status_code == 404
    assert client.get(f"/v1/jobs/{job.id}/grids/first.png").status_code == 422


def test_long_lists_come_in_pages(app: FastAPI, client: Client) -> None:
    """Grids, oldest first, and checkpoints, newest first: each once, with a cursor to the next page; a forged one is refused."""
    job = with_grids(app, [64, 128, 192])
    with app.state.database.writing() as session:
        for seen in (64, 128, 192):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen))
    for part, expected in (("grids", [64, 128, 192]), ("checkpoints", [192, 128, 64])):
        url = f"/v1/jobs/{job.id}/{part}"
        first = client.get(url, params={"limit": 2}).json()
        rest = client.get(url, params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [row["examples_seen"] for row in first["data"] + rest["data"]] == expected
        assert (len(first["data"]), rest["next_cursor"]) == (2, None)
        assert client.get(url, params={"cursor": "x"}).status_code == 422
    assert client.get(f"/v1/jobs/{job.id}/grids", params={"cursor": encode_cursor(10**30)}).json()["data"] == []


def test_events_show_no_storage_keys(app: FastAPI, client: Client) -> None:
    """The event of a grid has the picture's URL."""
    job = with_grids(app, [64])
    (event,) = client.get(f"/v1/jobs/{job.id}/events", params={"type": "grid"}).json()["data"]
    assert "key" not in event["data"]
    assert client.get(event["data"]["url"]).content == picture(64)


def test_the_film_shows_all_grids(app: FastAPI, client: Client) -> None:
    """An animated WebP of a frame for each grid; 304 while there is no new one; 404 before the first."""
    job = with_grids(app, [10, 20, 30])
    film = client.get(f"/v1/jobs/{job.id}/timelapse.webp", params={"fps": 4})
    image = Image.open(io.BytesIO(film.content))
    assert (image.format, image.n_frames) == ("WEBP", 3)
    again = client.get(film.request.url, headers={"If-None-Match": film.headers["etag"]})
    assert again.status_code == 304
    bare = with_grids(app, [])
    assert client.get(f"/v1/jobs/{bare.id}/timelapse.webp").status_code == 404
    assert client.get(f"/v1/jobs/{job.id}/timelapse.webp", params={"fps": "nan"}).status_code == 422


def test_a_film_is_made_once(app: FastAPI, client: Client) -> None:
    """Asked for again, it is the same without a look into the storage; at another speed it is another film."""
    job = with_grids(app, [10, 20])
    url = f"/v1/jobs/{job.id}/timelapse.webp"
    film = client.get(url)
    app.state.storage.delete([f"jobs/{job.id}/1/grids/{n:012d}.png" for n in (10, 20)])
    again = client.get(url)
    assert (again.status_code, again.content) == (200, film.content)
    assert again.headers["etag"] == film.headers["etag"]
    assert client.get(url, params={"fps": 4}).status_code == 404


def test_a_long_film_is_thinned(app: FastAPI, client: Client) -> None:
    """However many grids there are, the film stays short, and ends with the newest."""
    job = with_grids(app, range(1, 251))
    film = Image.open(io.BytesIO(client.get(f"/v1/jobs/{job.id}/timelapse.webp").content))
    assert 120 <= film.n_frames <= 241
    film.seek(film.n_frames - 1)
    assert film.convert("L").getpixel((0, 0)) == 250


def test_checkpoints_and_publishing(app: FastAPI, client: Client) -> None:
    """Listed newest first; publishing makes the next version of a model, once under one key."""
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session))
        for seen in (320, 640):
            jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, seen))
    newest, oldest = client.get(f"/v1/jobs/{job.id}/checkpoints").json()["data"]
    assert (newest["examples_seen"], newest["job"], newest["resumable"]) == (640, job.id, True)
    url = f"/v1/checkpoints/{oldest['id']}/publish"
    key = {"Idempotency-Key": "publish"}
    first = client.post(url, json={"model": "early"}, headers=key)
    assert first.status_code == 201
    assert first.headers["location"] == "/v1/models/early:1"
    assert (first.json()["ref"], first.json()["checkpoint"]) == ("early:1", oldest["id"])
    assert client.post(url, json={"model": "early"}, headers=key).json() == first.json()
    assert client.post(url, json={"model": "early"}).json()["version"] == 2
    latest = client.post("/v1/checkpoints/latest/publish", json={})
    assert (latest.json()["model"], latest.json()["examples_seen"]) == (job.model_name, 640)


@pytest.mark.parametrize(
    ("ref", "body", "status"),
    [
        ("ckpt_0", {}, 404),
        ("latest", {}, 404),
        ("ckpt_0", {"model": "ckpt_x"}, 422),
        ("ckpt_0", {"name": "x"}, 422),
        ("a b", {}, 422),
    ],
)
def test_bad_publishing(client: Client, ref, body, status) -> None:
    """Unknown checkpoints, names that look like ids, unknown keys."""
    assert client.post(f"/v1/checkpoints/{ref}/publish", json=body).status_code == status


@pytest.mark.parametrize("part", ["events", "metrics", "grids", "grids/1.png", "timelapse.webp", "checkpoints"])
def test_parts_of_an_unknown_job(client: Client, part) -> None:
    """404 as for the job itself."""
    response = client.get(f"/v1/jobs/job_0/{part}")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_a_job_that_has_just_been_submitted(app: FastAPI, client: Client) -> None:
    """Its lists are there and empty."""
    with app.state.database.writing() as session:
        job = make_job_in(session, "queued")
    assert client.get(f"/v1/jobs/{job.id}/grids").json() == {"data": [], "next_cursor": None}
    assert client.get(f"/v1/jobs/{job.id}/checkpoints").json() == {"data": [], "next_cursor": None}
    assert client.get(f"/v1/jobs/{job.id}/metrics").json() == {"columns": {"examples_seen": []}}
    with app.state.database.writing() as session:
        make_checkpoint(session, session.merge(job), state_key=None)
    assert client.get(f"/v1/jobs/{job.id}/checkpoints").json()["data"][0]["resumable"] is False
