"""POST /v1/samples/inspect, over real generators."""

import asyncio
import dataclasses
import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from app import registry
from app.formats import FORMATS, Format, captions, format_with, grid, upscale
from app.provenance import Provenance
from app.registry import Resolved
from app.routes.inspections import BODY_LIMIT_BYTES
from app.sampling import engine
from app.sampling.labels import of_seeds
from models.pictures import tile
from tests.app.routes.gallery import gallery

URL = "/v1/samples/inspect"
IMAGES = [name for name in FORMATS if name != "raw"]
EVERY = {name: FORMATS[name] for name in IMAGES} | {
    f"{name} 60": format_with(name, quality=60) for name in IMAGES if name != "png"
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, httpx.Client]]:
    with gallery(tmp_path_factory.mktemp("gallery")) as parts:
        yield parts


def resolve(app: FastAPI, ref: str) -> Resolved:
    with app.state.database.reading() as session:
        return registry.resolve(session, ref)


def pixels(client: httpx.Client, ref: str, seed: int, query: str = "") -> np.ndarray:
    """The sample [H, W, C], as the service gives it."""
    image = Image.open(io.BytesIO(client.get(f"/v1/models/{ref}/samples/{seed}.png{query}").content))
    array = np.asarray(image)
    return array.reshape(*array.shape[:2], -1)


def writer(app: FastAPI, ref: str, format: Format = FORMATS["png"]) -> Provenance:  # noqa: A002
    return Provenance(resolve(app, ref), format, engine.digest(app.state.settings.sampler_threads))


def inspect(client: httpx.Client, data: bytes, **options: object) -> dict:
    response = client.post(URL, files={"file": ("picture", data, "application/octet-stream")}, **options)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("entry", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("ref", ["cats:1", "ink:1", "glass:1"])
def test_a_picture_is_reproduced(running: tuple[FastAPI, httpx.Client], ref: str, entry: Format) -> None:
    """Gray, RGB and RGBA, in every format: it says where it comes from, and the same comes from there."""
    app, client = running
    name = "Käfer" if ref == "cats:1" else None
    sample = pixels(client, ref, 7, "?truncation=0.7" + (f"&class={name}" if name else ""))
    found = inspect(client, entry.encode(sample, writer(app, ref, entry).of(7, name, 0.7)))
    assert (found["found"], found["reproduced"], found["differing_pixels"], found["max_difference"]) == (
        True,
        True,
        0,
        0,
    )
    said = found["provenance"]
    assert (said["model"], said["seed"], said["class"], said["truncation"]) == (ref, 7, name, 0.7)


@pytest.mark.parametrize("name", ["png", "webp"])
def test_one_changed_pixel_is_seen(running: tuple[FastAPI, httpx.Client], name: str) -> None:
    """By one step in one channel."""
    app, client = running
    sample = pixels(client, "ink:1", 7)
    sample = sample.copy()
    sample[3, 4, 0] ^= 1
    found = inspect(client, FORMATS[name].encode(sample, writer(app, "ink:1").of(7, None)))
    assert (found["reproduced"], found["differing_pixels"], found["max_difference"]) == (False, 1, 1)
    assert "1 of 64 pixels" in found["reason"]


def test_a_changed_seed_is_seen(running: tuple[FastAPI, httpx.Client]) -> None:
    """The picture of one seed with the text of another; so with another class or truncation."""
    app, client = running
    sample = pixels(client, "cats:1", 7, "?class=cat")
    write = writer(app, "cats:1")
    assert inspect(client, FORMATS["png"].encode(sample, write.of(7, "cat")))["reproduced"] is True
    for text in (write.of(8, "cat"), write.of(7, "Käfer"), write.of(7, "cat", 0.5)):
        found = inspect(client, FORMATS["png"].encode(sample, text))
        assert (found["found"], found["reproduced"]) == (True, False)
        assert found["differing_pixels"] > 0


def test_enlarged_samples_and_grids_are_made_again(running: tuple[FastAPI, httpx.Client]) -> None:
    """With their scale, columns and captions; each seed's own class, one class, or one for each."""
    app, client = running
    write, seeds = writer(app, "cats:1"), [0, 1, 2, 7]
    classes = resolve(app, "cats:1").info["classes"]
    own = [classes[label] for label in of_seeds(classes, seeds, None)]

    def images(names: list[str]) -> np.ndarray:
        return np.stack([pixels(client, "cats:1", s, f"?class={n}") for s, n in zip(seeds, names, strict=True)])

    mixed, one = ["cat", "Käfer", "cat", "cat"], ["cat"] * 4
    cases = [
        (upscale(images(own)[3], 3), write.of(7, own[3], scale=3)),
        (tile(images(own), 3, scale=2), write.of_grid("0-2,7", 3, None, scale=2)),
        (tile(images(one), 2), write.of_grid("0-2,7", 2, "cat")),
        (tile(images(mixed), 2), write.of_grid("0-2,7", 2, [0, 1, 0, 0])),
        (grid(images(mixed), 2, captions(seeds, mixed)), write.of_grid("0-2,7", 2, [0, 1, 0, 0], labels=True)),
    ]
    for picture, text in cases:
        found = inspect(client, FORMATS["png"].encode(picture, text))
        assert found["reproduced"] is True, found
    wrong = inspect(client, FORMATS["png"].encode(cases[1][0], write.of_grid("0-2,8", 3, None, scale=2)))
    assert wrong["reproduced"] is False


def test_what_cannot_be_made_again_is_said(running: tuple[FastAPI, httpx.Client]) -> None:
    """A caller's own z, a class that there is not, classes of another number, too many seeds, a scale beyond the limit."""
    app, client = running
    sample = pixels(client, "cats:1", 7)
    write = writer(app, "cats:1")
    for text, reason in (
        (write.of_z(np.zeros(16, np.float32), "cat"), "z of the caller's own"),
        (write.of(7, "dog"), "no class 'dog'"),
        (write.of_grid("0-3", 2, [0, 1]), "2 classes"),
        (write.of_grid("0-3", 2, [0, 1, 2, 3]), "4 classes"),
        (write.of_grid("0-99999999", 2, None), "100000000 samples"),
        (write.of_grid("9-0", 2, None), "reversed"),
        (write.of(7, "cat", scale=1024), "pixels"),
        (Provenance(resolve(app, "cats:1"), FORMATS["jpeg"], "e").of(7, "cat"), "no quality"),
    ):
        found = inspect(client, FORMATS["png"].encode(sample, text))
        assert (found["found"], found["reproduced"]) == (True, None)
        assert reason in found["reason"]


def test_a_picture_of_another_shape_is_not_the_same(running: tuple[FastAPI, httpx.Client]) -> None:
    """Nothing is generated for it."""
    app, client = running
    write = writer(app, "ink:1")
    found = inspect(client, FORMATS["png"].encode(np.zeros((9, 8, 1), np.uint8), write.of(7, None)))
    assert (found["reproduced"], found["differing_pixels"]) == (False, None)
    assert "8 x 9 pixels" in found["reason"]
    wide, info = io.BytesIO(), Image.open(io.BytesIO(FORMATS["png"].encode(np.zeros((8, 8, 1), np.uint8))))
    cmyk = FORMATS["jpeg"].encode(pixels(client, "ink:1", 7), writer(app, "ink:1", FORMATS["jpeg"]).of(7, None))
    info.convert("CMYK").save(wide, "JPEG", exif=Image.open(io.BytesIO(cmyk)).getexif())
    assert "of another kind" in inspect(client, wide.getvalue())["reason"]


def test_a_picture_that_says_nothing(running: tuple[FastAPI, httpx.Client]) -> None:
    """It is a picture, and that is all there is to say."""
    _, client = running
    found = inspect(client, FORMATS["png"].encode(np.zeros((8, 8, 3), np.uint8)))
    assert (found["provenance"], found["found"], found["reproduced"]) == (None, False, None)


def test_other_weights_versions_and_data_are_not_found(running: tuple[FastAPI, httpx.Client]) -> None:
    """No version of that number, no such model, a name that can mean another tomorrow, and what only pretends."""
    app, client = running
    sample, resolved = pixels(client, "ink:1", 7), resolve(app, "ink:1")
    for change, reason in (
        ({"label": "ink:2"}, "no model version ink:2"),
        ({"label": "nobody:1"}, "nobody"),
        ({"label": "ink"}, "no lasting name"),
        ({"sha256": "0" * 64}, "other weights"),
        ({"info": {"dataset": {"sha256": "0" * 64}}}, "another data set"),
    ):
        write = Provenance(dataclasses.replace(resolved, **change), FORMATS["png"], "e" * 64)  # type: ignore[arg-type]
        found = inspect(client, FORMATS["png"].encode(sample, write.of(7, None)))
        assert (found["found"], found["reproduced"]) == (False, None)
        assert reason in found["reason"]


def test_another_engine_is_named_when_bits_differ(running: tuple[FastAPI, httpx.Client]) -> None:
    """Equal pixels are equal whoever made them; where they are not, the engine may be why."""
    app, client = running
    sample = pixels(client, "ink:1", 7)
    text = Provenance(resolve(app, "ink:1"), FORMATS["png"], "other").of(7, None)
    assert inspect(client, FORMATS["png"].encode(sample, text))["reproduced"] is True
    found = inspect(client, FORMATS["png"].encode(255 - sample, text))
    assert found["reproduced"] is False
    assert "another engine" in found["reason"]


def test_a_deleted_version_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The picture says where it came from, and that is gone."""
    with gallery(tmp_path_factory.mktemp("gallery")) as (app, client):
        data = FORMATS["png"].encode(pixels(client, "ink:1", 7), writer(app, "ink:1").of(7, None))
        assert inspect(client, data)["reproduced"] is True
        assert client.delete("/v1/models/ink:1").status_code == 204
        found = inspect(client, data)
        assert (found["found"], found["reproduced"]) == (False, None)
        assert "was deleted" in found["reason"]


def test_it_waits_its_turn_like_any_other(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A full queue answers 429; a look at what says nothing costs nothing."""
    with gallery(tmp_path_factory.mktemp("gallery"), sampler_queue_images=1) as (app, client):
        data = FORMATS["png"].encode(pixels(client, "ink:1", 7), writer(app, "ink:1").of(7, None))
        app.state.sampler.admission.enter(1, None)
        refused = client.post(URL, files={"file": data})
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert inspect(client, FORMATS["png"].encode(np.zeros((8, 8, 3), np.uint8)))["found"] is False


@pytest.mark.parametrize(
    ("request_parts", "status"),
    [
        ({"files": {"file": b"garbage"}}, 422),
        ({"files": {"file": b""}}, 422),
        ({"files": {"picture": b"x"}}, 422),
        ({"files": {"file": b"x"}, "data": {"seed": "1"}}, 422),
        ({"content": b"\x89PNG", "headers": {"Content-Type": "image/png"}}, 422),
        ({"json": {"file": "x"}}, 422),
        ({"files": {"file": b"x"}, "params": {"model": "ink"}}, 422),
        ({"files": {"file": bytes(BODY_LIMIT_BYTES)}}, 413),
    ],
    ids=["garbage", "empty", "no file", "a field", "no form", "json", "a parameter", "large"],
)
def test_other_requests_are_refused(
    running: tuple[FastAPI, httpx.Client], request_parts: dict[str, object], status: int
) -> None:
    """No picture, no file, another field or form, too large: a problem that says what to send."""
    _, client = running
    response = client.post(URL, **request_parts)  # type: ignore[arg-type]
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"]


def test_many_at_once(running: tuple[FastAPI, httpx.Client]) -> None:
    """Inspections beside each other do not mix."""
    app, client = running
    write = writer(app, "ink:1")
    files = [FORMATS["png"].encode(pixels(client, "ink:1", seed // 2), write.of(seed, None)) for seed in range(8)]

    async def ask() -> list[dict]:
        async with httpx.AsyncClient(base_url=client.base_url, trust_env=False, timeout=30) as caller:
            answers = await asyncio.gather(*(caller.post(URL, files={"file": data}) for data in files))
        return [json.loads(answer.content) for answer in answers]

    found = asyncio.run(ask())
    assert [each["provenance"]["seed"] for each in found] == list(range(8))
    assert [each["reproduced"] for each in found] == [True] + [False] * 7
