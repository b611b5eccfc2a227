"""Which models are in memory, and that pinned ones are and stay."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import Client

from app import registry
from app.main import create_app
from app.sampling import engine
from app.sampling.loaded import Loaded
from tests.app.routes.gallery import gallery
from tests.factories import make_checkpoint, make_job_in
from tests.servers import wait_until
from tests.serving import serving


def loaded(client: Client, wanted: bool) -> list[str]:
    answer = client.get("/v1/models", params={"loaded": wanted})
    models = answer.json()["data"]
    assert all(any(version["loaded"] for version in model["versions"]) is wanted for model in models)
    return [model["name"] for model in models]


def test_models_can_be_listed_by_whether_they_are_in_memory(tmp_path: Path) -> None:
    """A model is loaded once it was sampled, and a look at it says so."""
    with gallery(tmp_path) as (_, client):
        assert (loaded(client, True), loaded(client, False)) == ([], ["cats", "glass", "ink"])
        client.get("/v1/models/ink/samples/1.png")
        assert (loaded(client, True), loaded(client, False)) == (["ink"], ["cats", "glass"])
        assert [client.get(f"/v1/models/{name}").json()["loaded"] for name in ("ink", "cats")] == [True, False]


def test_a_pinned_model_stays_and_comes_back(tmp_path: Path) -> None:
    """It is loaded at once, outlives others that want the room, and after a restart it is there before it is asked for."""
    with gallery(tmp_path, sweep_seconds=0.2) as (app, client):
        answer = client.put("/v1/models/cats/pin")
        cache = app.state.sampler.cache
        size = sum(cache.sizes().values())
        assert (answer.status_code, answer.json()) == (200, {"ref": "cats", "version": "cats:1", "bytes": size})
        cache.limit_bytes = size
        for name in ("ink", "glass"):
            assert client.get(f"/v1/models/{name}/samples/1.png").status_code == 200
        assert loaded(client, True) == ["cats", "glass"]
        settings = app.state.settings
    app = create_app(settings)
    with serving(app) as client:
        wait_until(lambda: loaded(client, True) == ["cats"], seconds=20)
        assert client.delete("/v1/models/cats/pin").status_code == 204
        unpinned = client.delete("/v1/models/cats/pin")
        assert (unpinned.status_code, unpinned.json()["detail"]) == (404, "'cats' is not pinned; nothing is pinned.")
        app.state.sampler.cache.limit_bytes = size
        for name in ("ink", "glass"):
            client.get(f"/v1/models/{name}/samples/1.png")
        assert "cats" not in loaded(client, True)


def test_what_does_not_fit_is_not_pinned(tmp_path: Path) -> None:
    """Pins beyond the limit are refused, and say what takes the room; what is missing is 404; and nothing changes."""
    with gallery(tmp_path) as (app, client):
        app.state.sampler.cache.limit_bytes = 1
        answer = client.put("/v1/models/cats/pin")
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
        assert "GANVIL_SAMPLER_MEMORY_BYTES" in answer.json()["detail"]
        assert client.put("/v1/models/nothing/pin").status_code == 404
        assert client.delete("/v1/models/cats/pin").status_code == 404


def test_a_deleted_model_is_pinned_no_more(tmp_path: Path) -> None:
    """Its pin goes with it, and the pin of an alias with the alias."""
    with gallery(tmp_path) as (_, client):
        client.put("/v1/models/cats/aliases/prod", json={"version": 1})
        for ref in ("ink:1", "cats@prod"):
            assert client.put(f"/v1/models/{ref}/pin").status_code == 200
        client.delete("/v1/models/ink:1")
        client.delete("/v1/models/cats/aliases/prod")
        for ref in ("ink:1", "cats@prod"):
            assert client.delete(f"/v1/models/{ref}/pin").status_code == 404


def test_another_process_pins_too(tmp_path: Path) -> None:
    """What one process was told, the others do within a sweep; and what an alias means later is loaded before it is asked for."""
    with gallery(tmp_path, sweep_seconds=0.2) as (app, client), serving(create_app(app.state.settings)) as other:
        client.put("/v1/models/glass/pin")
        wait_until(lambda: loaded(other, True) == ["glass"], seconds=20)


def test_what_is_pinned_can_be_seen(tmp_path: Path) -> None:
    """A model lists the references to it that are pinned, and a look at any reference says whether it is one of them."""
    with gallery(tmp_path) as (_, client):
        client.put("/v1/models/cats/aliases/prod", json={"version": 1})
        for ref in ("cats@prod", "cats", "ink:1"):
            assert client.put(f"/v1/models/{ref}/pin").status_code == 200
        seen = {model["name"]: model["pins"] for model in client.get("/v1/models").json()["data"]}
        assert seen == {"cats": ["cats", "cats@prod"], "ink": ["ink:1"], "glass": []}
        client.delete("/v1/models/cats/pin")
        looks = {ref: client.get(f"/v1/models/{ref}").json() for ref in ("cats", "cats:1", "cats@prod", "ink:1", "ink")}
        assert [ref for ref, look in looks.items() if look["kept_loaded"]] == ["cats@prod", "ink:1"]
        assert looks["cats"]["model"]["pins"] == ["cats@prod"]


def test_a_pinned_job_is_seen_and_goes_with_the_job(app: FastAPI, client: Client) -> None:
    """A job and its checkpoint say that they are pinned, and when the job is deleted neither is any more."""
    with app.state.database.writing() as session:
        job = make_job_in(session, "failed")
        checkpoint = make_checkpoint(session, job)
        for ref in (job.id, checkpoint.id):
            registry.pin(session, ref)
    for ref in (job.id, checkpoint.id):
        look = client.get(f"/v1/models/{ref}").json()
        assert (look["kept_loaded"], look["model"]) == (True, None)
    assert client.delete(f"/v1/jobs/{job.id}").status_code == 204
    for ref in (job.id, checkpoint.id):
        assert client.delete(f"/v1/models/{ref}/pin").status_code == 404


def test_a_pinned_model_that_cannot_be_loaded_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its loading raises, those that are pinned beside it and after it are loaded, and so is it once it can be."""
    load = engine.load

    def spoiled(snapshot: Path, resolved: registry.Resolved) -> Loaded:
        if resolved.label == "cats:1":
            raise AttributeError("a mistake")
        return load(snapshot, resolved)

    with gallery(tmp_path, sweep_seconds=0.2) as (app, client):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "load", spoiled)
            with app.state.database.writing() as session:
                for name in ("cats", "glass"):
                    registry.pin(session, name)
            wait_until(lambda: loaded(client, True) == ["glass"], seconds=20)
            assert client.put("/v1/models/ink/pin").status_code == 200
            assert loaded(client, True) == ["glass", "ink"]
        wait_until(lambda: loaded(client, True) == ["cats", "glass", "ink"], seconds=20)
