"""Health, queue, workers and the catalog over HTTP."""

import shutil

import jsonschema
import pytest
from fastapi import FastAPI
from httpx import Client

from app import batches, workers
from app.main import create_app
from app.settings import Settings
from models.catalog import FAMILIES, LOSSES
from models.presets import PRESETS
from tests.app.batches.rows import make_batch
from tests.factories import make_dataset, make_job_in
from tests.servers import RedisServer
from tests.serving import serving


def test_everything_answers(settings: Settings, redis_server: RedisServer) -> None:
    """200 `ready` when database, storage and Redis are up."""
    with serving(create_app(settings.model_copy(update={"redis_url": redis_server.url}))) as client:
        response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "components": dict.fromkeys(["database", "storage", "redis"], "up")}


def test_without_redis_jobs_are_still_taken_in(settings: Settings) -> None:
    """Redis down: 200 `degraded`, and a submission is answered with 201 at once."""
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with serving(app) as client:
        response = client.get("/health/ready")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["components"]["redis"] == "down"
        with app.state.database.writing() as session:
            make_dataset(session, name="digits")
        submitted = client.post("/v1/jobs", json={"dataset": "digits"})
        assert submitted.status_code == 201
        assert submitted.elapsed.total_seconds() < 2


def test_without_its_database_it_is_not_ready(app: FastAPI, client: Client) -> None:
    """503 `unready` names what is down; the process is still alive; other requests get a 503 problem."""
    app.state.database.close()
    shutil.rmtree(app.state.settings.data_dir)
    response = client.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "unready")
    assert response.json()["components"]["database"] == "down"
    assert client.get("/health/live").json() == {"status": "live"}
    refused = client.get("/v1/jobs")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")


def test_queue_and_workers(app: FastAPI, client: Client) -> None:
    """Counts by status, since when the oldest waits, and the slots of the workers that live."""
    with app.state.database.writing() as session:
        for status in ("queued", "queued", "paused", "cancelled"):
            make_job_in(session, status)
        make_batch(session)
        batches.cancel(session, make_batch(session).id)
        workers.beat(session, worker="box:1", slots=2, busy=1, device="cpu", gpus=0, cores=4)
    queue = client.get("/v1/queue").json()
    assert queue["jobs"] == {"queued": 2, "paused": 1, "cancelled": 1}
    assert queue["oldest_queued_at"].endswith("Z")
    assert queue["batches"] == {"queued": 1, "cancelled": 1}
    assert (queue["workers"], queue["slots"], queue["busy"]) == (1, 2, 1)
    (worker,) = client.get("/v1/workers").json()["data"]
    assert (worker["id"], worker["slots"], worker["busy"], worker["device"]) == ("box:1", 2, 1, "cpu")


def test_an_empty_queue(caller: Client) -> None:
    """Nothing waits."""
    empty = {"jobs": {}, "oldest_queued_at": None, "batches": {}, "workers": 0, "slots": 0, "busy": 0}
    assert caller.get("/v1/queue").json() == empty
    assert caller.get("/v1/workers").json() == {"data": []}


def test_the_catalog(caller: Client) -> None:
    """Every preset, family and loss that exists, with the JSON schema of what they take."""
    presets = caller.get("/v1/presets").json()
    assert [preset["name"] for preset in presets["data"]] == list(PRESETS)
    schema = presets["config_schema"]
    for preset in presets["data"]:
        for part in (preset["config"], preset["few"], preset["cuda"] or {}):
            jsonschema.validate(part, schema)
    for wrong in ({"batchsize": 10}, {"network": {"widht": 32}}, {"optimizer": {"generator_lr": {"start": 1e-3}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    families = caller.get("/v1/families").json()
    assert [family["name"] for family in families["data"]] == list(FAMILIES)
    assert all("z_dim" in family["options"]["properties"] for family in families["data"])
    assert families["losses"] == LOSSES


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/openapi.json", "/static/swagger.js", "/static/redoc.standalone.js"]
)
def test_the_docs_come_from_the_package(caller: Client, path: str) -> None:
    """The pages and all that they load are served from here; the pages' policy lets them load nothing else."""
    response = caller.get(path, follow_redirects=True)
    assert response.status_code == 200
    if response.headers["content-type"].startswith("text/html"):
        assert "default-src 'none'; script-src 'self'" in response.headers["content-security-policy"]
        assert "//" not in response.text
