"""Films of the way from sample to sample."""

import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import Client, Response
from PIL import Image, ImageSequence

from app.client import Client as Ganvil
from app.http.films import AT_ONCE
from tests.app.routes.gallery import CLASSES, gallery
from tests.generators import publish_generator
from tests.servers import wait_until

CATS = "/v1/models/cats:1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


@pytest.fixture
def app(running: tuple[FastAPI, Client]) -> FastAPI:
    return running[0]


@pytest.fixture
def client(running: tuple[FastAPI, Client]) -> Client:
    return running[1]


def ask(client: Client, model: str = "cats:1", seeds: object = (7, 8, 9), **more: object) -> Response:
    body = {"model": model, "seeds": list(seeds) if isinstance(seeds, tuple) else seeds} | more
    return client.post("/v1/interpolations", json=body)


def frames_of(data: bytes) -> np.ndarray:
    return np.array(
        [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]
    )


def sample(client: Client, model: str, seed: int, **params: object) -> np.ndarray:
    data = client.get(f"/v1/models/{model}/samples/{seed}.png", params=params).content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("cats:1", {}),
        ("cats:1", {"class": "cat"}),
        ("cats:1", {"classes": [0, "Käfer", 1]}),
        ("cats:1", {"truncation": 0.5}),
        ("ink:1", {}),
    ],
)
def test_at_each_stop_is_the_sample_itself(client: Client, model: str, more: dict[str, object], loop: bool) -> None:
    """Pixel for pixel what the seed's own address gives, with its class; what lies between is not."""
    answer = ask(client, model, (7, 8, 9), frames=6, loop=loop, **more)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    frames = frames_of(answer.content)
    assert len(frames) == (18 if loop else 13)
    classes = more.get("classes") or [more.get("class")] * 3
    for index, (seed, name) in enumerate(zip((7, 8, 9), classes, strict=True)):
        params = {"truncation": more.get("truncation", 1)} | ({} if name is None else {"class": name})
        assert np.array_equal(frames[6 * index], sample(client, model, seed, **params))
        assert not np.array_equal(frames[6 * index - 1], frames[6 * index])


def test_as_many_frames_as_may_be_asked_for_can_be_had(client: Client) -> None:
    """Between two seeds; the film has as many as a film may have."""
    assert len(frames_of(ask(client, seeds=(1, 2), frames=239).content)) == 240


def test_between_classes_it_goes_in_small_steps(client: Client) -> None:
    """One seed with one class and another: nothing jumps, so the classes are mixed on the way."""
    frames = frames_of(ask(client, seeds=(5, 5), classes=CLASSES, frames=40).content).astype(float)
    whole = np.abs(frames[-1] - frames[0]).mean()
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert whole > 1
    assert steps.max() < whole / 4


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_a_film_has_an_address(client: Client, form: str) -> None:
    """The same bytes come again, by body and by address, which Content-Location tells; ETag, 304 and HEAD are as for samples."""
    how = {"classes": ["cat", "Käfer", "cat"], "frames": 4, "fps": 7.5, "loop": True, "scale": 2, "truncation": 0.8}
    posted = ask(client, format=form, **how)
    assert posted.headers["content-type"] == f"image/{form}"
    address = posted.headers["content-location"]
    assert address.startswith(
        f"/v1/models/cats:1/interpolation.{form}?seeds=7%2C8%2C9&class=cat&class=K%C3%A4fer&class=cat"
    )
    got = client.get(address)
    assert (got.status_code, got.content) == (200, posted.content)
    assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert got.headers["x-model-version"] == posted.headers["x-model-version"] == "cats:1"
    assert Image.open(io.BytesIO(got.content)).size == (16, 16)
    head = client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"] == posted.headers["etag"]
    assert client.get(address, headers={"If-None-Match": got.headers["etag"]}).status_code == 304


def test_an_address_that_nobody_could_use_is_not_told(app: FastAPI, client: Client, tmp_path: Path) -> None:
    """A film of many classes with long names comes without Content-Location; of few of them it has one that works."""
    names = ["é" * 90 + str(n) for n in range(3)]
    publish_generator(app.state.database, app.state.storage, tmp_path, "long", channels=3, classes=names)
    many = ask(client, "long:1", seeds=tuple(range(60)), frames=1, classes=[0, 1, 2] * 20)
    assert (many.status_code, "content-location" in many.headers) == (200, False)
    few = ask(client, "long:1", seeds=tuple(range(6)), frames=1, classes=[0, 1, 2] * 2)
    assert client.get(few.headers["content-location"]).content == few.content


def test_what_is_kept_or_held_is_not_made_again(app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample is made for 304 or HEAD, nor for a film that was just made; text and list name the same film."""
    first = ask(client, seeds=(1, 2), frames=3)
    monkeypatch.setattr(app.state.sampler, "gather", None)
    assert ask(client, seeds="1-2", frames=3).content == first.content
    address = first.headers["content-location"]
    assert client.get(address).content == first.content
    assert client.head(address.replace("seeds=1%2C2", "seeds=1%2C3")).status_code == 200


def test_every_part_of_the_address_changes_the_tag(client: Client) -> None:
    """Seeds and their order, class, truncation, frames, speed, loop, scale and format; and it is that of no sample."""
    base = {"seeds": "1-2", "class": "cat", "frames": 3}
    changes = [
        {},
        {"seeds": "2,1"},
        {"class": "1"},
        {"class": ["cat", "1"]},
        {"frames": 4},
        {"fps": 7},
        {"loop": "true"},
        {"scale": 2},
        {"truncation": 0.5},
    ]
    heads = [client.head(f"{CATS}/interpolation.webp", params=base | change) for change in changes]
    heads.append(client.head(f"{CATS}/interpolation.gif", params=base))
    assert {head.status_code for head in heads} == {200}
    assert len({head.headers["etag"] for head in heads}) == len(heads)


@pytest.mark.parametrize(
    ("more", "pointer", "said"),
    [
        ({"seeds": [7]}, "#/seeds", "two seeds"),
        ({"seeds": "7"}, "#/seeds", "two seeds"),
        ({"seeds": []}, "#/seeds", "two seeds"),
        ({"seeds": "3-1"}, "#/seeds", "reversed"),
        ({"seeds": "0-999999999999"}, "#/seeds", "1000000000000 seeds are given, and a film leads over 240 at most"),
        ({"seeds": [-1, 2]}, "#/seeds/0", "greater"),
        ({"frames": 0}, "#/frames", "greater"),
        ({"frames": 240}, "#/frames", "239"),
        ({"frames": 120}, "#/frames", "241 frames"),
        ({"scale": 32, "frames": 120, "seeds": [1, 2, 3]}, "#/frames", "240 that a film"),
        ({"scale": 33}, "#/scale", "32"),
        ({"fps": 0}, "#/fps", "greater"),
        ({"fps": 61}, "#/fps", "60"),
        ({"truncation": 0}, "#/truncation", "greater"),
        ({"format": "mp4"}, "#/format", "video"),
        ({"format": "png"}, "#/format", "webp, gif"),
        ({"class": "bird"}, "#/class", "cat"),
        ({"classes": ["cat", "bird", "cat"]}, "#/classes/1", "cat"),
        ({"classes": ["cat"]}, "#/classes", "one for each"),
        ({"classes": ["cat"] * 3, "class": "cat"}, "#/classes", "either"),
        ({"loop": "yes"}, "#/loop", "boolean"),
        ({"model": "ink:1", "class": "cat"}, "#/class", "no classes"),
    ],
)
def test_what_cannot_be_made_is_named(client: Client, more: dict[str, object], pointer: str, said: str) -> None:
    """422 with the field, before anything is made."""
    answer = client.post("/v1/interpolations", json={"model": "cats:1", "seeds": [7, 8, 9]} | more)
    assert answer.status_code == 422
    error = answer.json()["errors"][0]
    assert error["pointer"] == pointer
    assert said in error["detail"] + answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("seeds=1", "#/seeds"),
        ("seeds=a-b", "#/seeds"),
        ("frames=240", "#/frames"),
        ("class=cat&class=cat", "#/class"),
        ("class=bird", "#/class"),
        ("format=gif", "#/format"),
    ],
)
def test_an_address_is_checked_alike(client: Client, query: str, pointer: str) -> None:
    """422 that says it was the query."""
    answer = client.get(
        f"{CATS}/interpolation.webp?seeds=1-3&{query}" if "seeds" not in query else f"{CATS}/interpolation.webp?{query}"
    )
    assert answer.status_code == 422
    assert (answer.json()["errors"][0]["pointer"], answer.json()["errors"][0]["in"]) == (pointer, "query")


def test_unknown_models_and_forms_are_said(client: Client) -> None:
    """404 for a model that there is not; 422 for an extension that cannot be made."""
    assert ask(client, "dogs").status_code == 404
    assert client.get("/v1/models/dogs/interpolation.webp").status_code == 404
    assert client.get(f"{CATS}/interpolation.mp4").status_code == 422


def test_the_client_asks_for_films(client: Client) -> None:
    """With a list or text, and the options of the body."""
    with Ganvil(str(client.base_url)) as ganvil:
        made = ganvil.interpolate("cats:1", [1, 2], frames=3, **{"class": "cat"})
        assert made == ganvil.interpolate("cats:1", "1,2", frames=3, **{"class": "cat"})
    assert len(frames_of(made)) == 4


class Held:
    """The samplings of an application, counted, and held until `may_go` is set."""

    def __init__(self, app: FastAPI, patch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.may_go = threading.Event()
        self._films = app.state.films
        self._gather = app.state.sampler.gather
        patch.setattr(app.state.sampler, "gather", self._held)

    @property
    def waiting(self) -> int:
        """Requests that wait for a film."""
        return sum(making.waiting for making in list(self._films._making.values()))

    async def _held(self, *args: Any) -> Any:
        self.begun += 1
        await asyncio.to_thread(self.may_go.wait, 20)
        return await self._gather(*args)


def test_many_who_want_one_film_cost_one(app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen at once: its samples are made once and all get it, and whose deadline passes meanwhile is told so alone."""
    held = Held(app, monkeypatch)
    address = f"{CATS}/interpolation.webp?seeds=31,32&frames=3"
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(client.get, address) for _ in range(12)]
        wait_until(lambda: held.waiting == 12, seconds=20)
        late = client.get(address, headers={"X-Deadline-Seconds": "0.1"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        held.may_go.set()
        answers = [answer.result() for answer in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert held.begun == 1


def test_films_are_refused_before_anything_is_made(
    app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dozen different ones as many are made as may be, and the others cost no sample and are told when to come again."""
    held = Held(app, monkeypatch)

    def ended(asked: list["Future[Response]"]) -> list[Response]:
        return [answer.result() for answer in asked if answer.done()]

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(client.get, f"{CATS}/interpolation.webp?seeds=41,42&frames={n + 2}") for n in range(12)]
        wait_until(lambda: len(ended(asked)) == 12 - AT_ONCE, seconds=20)
        for answer in ended(asked):
            assert (answer.status_code, answer.json()["code"]) == (429, "busy")
            assert int(answer.headers["retry-after"]) > 0
        held.may_go.set()
    assert sorted(answer.status_code for answer in ended(asked)) == [200] * AT_ONCE + [429] * (12 - AT_ONCE)
    assert held.begun == AT_ONCE
