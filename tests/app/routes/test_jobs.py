"""Jobs over HTTP."""

import pytest
from fastapi import FastAPI
from httpx import Client

from app import jobs
from app.db import Database
from app.main import create_app
from app.tables import Dataset
from tests.factories import claimed, make_dataset, make_job, make_job_in, new_checkpoint
from tests.serving import serving

REQUEST = {"dataset": "digits", "budget": {"examples": 640}, "seed": 1}


@pytest.fixture
def digits(app: FastAPI, client: Client) -> Dataset:
    with app.state.database.writing() as session:
        return make_dataset(session, name="digits")


@pytest.fixture(scope="module")
def refusing(shared: FastAPI, caller: Client) -> Client:
    """Calls the shared application, in which `digits` is ready and nothing was ever submitted."""
    with shared.state.database.writing() as session:
        make_dataset(session, name="digits")
    return caller


def made_in(app: FastAPI, status: str) -> str:
    with app.state.database.writing() as session:
        return make_job_in(session, status).id


def count(client: Client) -> int:
    return len(client.get("/v1/jobs").json()["data"])


def test_a_data_set_is_enough(digits: Dataset, client: Client) -> None:
    """201 with Location; preset, model and seed are chosen; it is next in the queue."""
    response = client.post("/v1/jobs", json={"dataset": "digits"})
    assert response.status_code == 201
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["desired"], job["queue_position"]) == ("queued", "run", 1)
    assert (job["dataset"], job["model"], job["preset"]) == (digits.id, "digits", "auto")
    assert (job["chosen_preset"], job["preset_reason"][:10], job["initial"]) == ("few-shot", "200 images", None)
    assert job["progress"]["percent"] == 0
    assert job["config"]["seed"] >= 0
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    assert client.get("/v1/jobs/latest").json() == job


def test_a_dry_run_stores_nothing(any_database: Database) -> None:
    """200 with the resolved config and what the budget comes to; no row."""
    with any_database.writing() as session:
        make_dataset(session, name="digits")
    request = REQUEST | {"budget": {"epochs": 2}, "config": {"batch_size": 16}, "metadata": {"a": "b"}, "priority": 3}
    with serving(create_app(any_database.settings)) as client:
        response = client.post("/v1/jobs?dry_run=true", json=request)
        assert response.status_code == 200, response.text
        plan = response.json()
        assert (plan["preset"], plan["chosen_preset"], plan["initial"]) == ("auto", "few-shot", None)
        assert (plan["examples_total"], plan["epochs"]) == (400, 2.0)
        assert plan["parameters"] is plan["memory_bytes"] is plan["examples_per_second"] is plan["measured"] is None
        assert (plan["estimated_seconds"], plan["note"]) == (None, "No worker is there to measure it.")
        assert (plan["config"]["batch_size"], plan["config"]["seed"]) == (16, 1)
        assert count(client) == 0


def test_a_dry_run_waits_for_no_writer(any_database: Database) -> None:
    """It only reads: a writing transaction of another, which holds the data set, does not hold it up."""
    with any_database.writing() as session:
        dataset = make_dataset(session, name="digits")
    with serving(create_app(any_database.settings)) as client, any_database.writing() as session:
        session.get_one(Dataset, dataset.id, with_for_update=True)
        assert client.post("/v1/jobs?dry_run=true", json=REQUEST, timeout=3).status_code == 200


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"dataset": "cats"}, 404, None),
        ({"dataset": None}, 422, "#/dataset"),
        ({"dataset": "a\x00"}, 422, "#/dataset"),
        ({"preset": "best"}, 422, "#/preset"),
        ({"model": "job_mine"}, 422, "#/model"),
        ({"model": "a b"}, 422, "#/model"),
        ({"seed": -1}, 422, "#/seed"),
        ({"seed": 2**63}, 422, "#/seed"),
        ({"seed": 1.5}, 422, "#/seed"),
        ({"seed": "1"}, 422, "#/seed"),
        ({"seed": True}, 422, "#/seed"),
        ({"budget": {"examples": 0}}, 422, "#/budget/examples"),
        ({"budget": {"examples": -5}}, 422, "#/budget/examples"),
        ({"budget": {"examples": 10**30}}, 422, "#/budget/examples"),
        ({"budget": {"epochs": 0}}, 422, "#/budget/epochs"),
        ({"budget": {"seconds": 1e300}}, 422, "#/budget/seconds"),
        ({"budget": {}}, 422, "#/budget"),
        ({"budget": {"examples": 5, "epochs": 1}}, 422, "#/budget"),
        ({"budget": {"steps": 5}}, 422, "#/budget/steps"),
        ({"initial": "letters"}, 404, None),
        ({"initial": "a b"}, 422, "#/initial"),
        ({"initial": ""}, 422, "#/initial"),
        ({"priority": 10**6}, 422, "#/priority"),
        ({"metadata": {"a": 1}}, 422, "#/metadata/a"),
        ({"metadata": {"a": "\x00"}}, 422, "#/metadata/a"),
        ({"metadata": {f"{n}": "x" for n in range(17)}}, 422, "#/metadata"),
        ({"config": {"batch_size": 0}}, 422, "#/config/batch_size"),
        ({"config": {"batch_size": "many"}}, 422, "#/config/batch_size"),
        ({"config": {"batch_size": 10**40}}, 422, "#/config"),
        ({"config": {"batches": 1}}, 422, "#/config/batches"),
        ({"config": {"loss": "hope"}}, 422, "#/config/loss"),
        ({"config": {"network": {"family": "transformer"}}}, 422, "#/config/network/family"),
        ({"config": {"network": {"family": "dcgan", "z_dim": 0}}}, 422, "#/config/network/z_dim"),
        ({"config": {"loss": "\x00"}}, 422, "#/config"),
        ({"config": {"optimizer": {"beta1": 2}}}, 422, "#/config/optimizer/beta1"),
        ({"config": []}, 422, "#/config"),
        ({"unknown": 1}, 422, "#/unknown"),
    ],
)
def test_bad_submissions_name_the_field(refusing: Client, change, status, pointer, dry_run) -> None:
    """A problem that points at the field, for a dry run as for a submission; no row."""
    response = refusing.post(f"/v1/jobs?dry_run={dry_run}", json=REQUEST | change)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert count(refusing) == 0


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"budgets": {"examples": 5}}, "budget, config, dataset"),
        ({"budget": {"minutes": 5}}, "epochs, examples, seconds"),
        ({"config": {"batchsize": 10}}, "augment, batch_size, budget"),
        ({"config": {"network": {"family": "dcgan", "widht": 8}}}, "max_width, width, z_dim"),
        ({"config": {"optimizer": {"lr": 0.1}}}, "beta1, beta2, discriminator_lr, generator_lr"),
        ({"config": {"optimizer": {"generator_lr": {"start": 1e-3, "stop": 1e-4}}}}, "end, hold, over, start"),
    ],
)
def test_a_misspelt_name_is_told_those_that_there_are(refusing: Client, change: dict, known: str) -> None:
    """In the request, and anywhere in the config."""
    details = [error["detail"] for error in refusing.post("/v1/jobs", json=REQUEST | change).json()["errors"]]
    assert any(detail.startswith("unknown here, where there is ") and known in detail for detail in details), details


@pytest.mark.parametrize(
    "literal", ["NaN", "1e999", "Infinity", '"\\ud800"', "[" * 40 + "]" * 40, '{"a":' * 40 + "1" + "}" * 40, str(2**64)]
)
def test_what_json_cannot_hold_is_refused(refusing: Client, literal) -> None:
    """NaN, infinity, lone surrogates, deep nesting and huge integers inside free-form parts give 422."""
    for place in ("config", "metadata"):
        body = f'{{"dataset": "digits", "{place}": {{"key": {literal}}}}}'
        response = refusing.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"].startswith(f"#/{place}")


def test_a_job_begins_with_a_model(app: FastAPI, client: Client) -> None:
    """The answer names the version for good, also that of a dry run; one that does not fit is refused at #/initial."""
    with app.state.database.writing() as session:
        make_dataset(session, name="digits")
        wide = make_dataset(session, name="wide", width=16)
        model = make_job_in(session, "succeeded").model_name
    for dry_run in ("true", "false"):
        response = client.post(f"/v1/jobs?dry_run={dry_run}", json=REQUEST | {"initial": model})
        assert response.json()["initial"] == f"{model}:1"
        refused = client.post(f"/v1/jobs?dry_run={dry_run}", json=REQUEST | {"initial": model, "dataset": wide.id})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/initial")
    assert client.delete(f"/v1/models/{model}:1").status_code == 409


def test_a_job_shows_how_good_it_is(app: FastAPI, client: Client) -> None:
    """The newest evaluation and verdict stand in the job, the reports on its checkpoints and versions, and KID in the metrics."""
    report = {"kid": 0.25, "features": {"name": "classifier"}, "notes": []}
    verdict = {"verdict": "healthy", "message": "All is well.", "figures": {"kid": 0.25}}
    with app.state.database.writing() as session:
        job = claimed(session, make_job(session, request={"model": "shown"}))
        events = [jobs.NewEvent("evaluation", report, 320, 1.0), jobs.NewEvent("verdict", verdict, 320, 1.0)]
        jobs.report(session, job.id, job.fence, events)
        jobs.record_checkpoint(session, job.id, job.fence, new_checkpoint(job, 320, kid=0.25))
        jobs.succeed(session, job.id, job.fence)
    whole = report | {"elapsed_seconds": 1.0}
    shown = client.get(f"/v1/jobs/{job.id}").json()
    assert (shown["evaluation"], shown["verdict"]) == (whole, verdict)
    (checkpoint,) = client.get(f"/v1/jobs/{job.id}/checkpoints").json()["data"]
    assert (checkpoint["kid"], checkpoint["evaluation"]) == (0.25, whole)
    snapshot = client.get("/v1/models/shown:1").json()
    assert snapshot["evaluation"] == snapshot["model"]["versions"][0]["evaluation"] == whole
    assert client.get(f"/v1/jobs/{job.id}/metrics").json()["columns"]["kid"] == [0.25]
    (event,) = client.get(f"/v1/jobs/{job.id}/events?type=evaluation").json()["data"]
    assert (event["kind"], event["data"]) == ("evaluation", whole)


def test_a_data_set_that_is_not_ready_is_refused(client: Client) -> None:
    """409 with the state that is in the way."""
    client.post("/v1/datasets/import", json={"source": {"kind": "builtin", "name": "digits"}})
    response = client.post("/v1/jobs", json=REQUEST)
    assert response.status_code == 409
    assert response.json()["state"] == "preparing"


def test_lists_filter_and_page(app: FastAPI, client: Client) -> None:
    """By status, model and data set (id or name), newest first, with queue positions."""
    with app.state.database.writing() as session:
        digits = make_dataset(session, name="digits")
        queued = [make_job(session, digits, request={"model": "a"}).id for _ in range(3)]
        other = make_job(session, request={"model": "b"})
        jobs.cancel(session, other.id)

    def ids(**params) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=params).json()["data"]]

    assert ids() == [other.id, *queued[::-1]]
    assert ids(status="cancelled") == ids(model="b") == ids(dataset=other.dataset_id) == [other.id]
    assert ids(dataset="digits", status="queued") == queued[::-1]
    assert ids(dataset="nothing") == []
    page = client.get("/v1/jobs", params={"limit": 2, "status": "queued"}).json()
    assert [job["queue_position"] for job in page["data"]] == [3, 2]
    rest = client.get("/v1/jobs", params={"limit": 2, "status": "queued", "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["data"]] == queued[:1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("params", [{"status": "lost"}, {"model": "a b"}, {"dataset": "\x00"}, {"limit": "many"}])
def test_bad_filters_name_the_parameter(caller: Client, params) -> None:
    """422, in the query."""
    response = caller.get("/v1/jobs", params=params)
    assert response.status_code == 422
    assert response.json()["errors"][0]["in"] == "query"


VERBS = ("cancel", "pause", "resume", "retry")
ALLOWED = {
    "queued": {"cancel": "cancelled", "pause": "paused", "resume": "queued", "retry": "queued"},
    "running": {"cancel": "running", "pause": "running", "resume": "running", "retry": "running"},
    "paused": {"cancel": "cancelled", "pause": "paused", "resume": "queued"},
    "succeeded": {},
    "failed": {"retry": "queued"},
    "cancelled": {"cancel": "cancelled", "retry": "queued"},
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", ALLOWED)
def test_verbs_by_state(app: FastAPI, client: Client, status, verb) -> None:
    """202 where the state allows it, also when repeated; else 409 that says the state."""
    job = made_in(app, status)
    wanted = ALLOWED[status].get(verb)
    for _ in range(2):
        response = client.post(f"/v1/jobs/{job}/{verb}")
        if wanted is None:
            assert response.status_code == 409
            assert (response.json()["code"], response.json()["state"]) == ("invalid_state", status)
        else:
            assert response.status_code == 202
            assert response.json()["status"] == wanted


def test_a_change_keeps_what_is_left_out(app: FastAPI, client: Client) -> None:
    """PATCH answers with the changed job; a budget that is used up, or of a running job, is refused."""
    job = made_in(app, "paused")
    changed = client.patch(f"/v1/jobs/{job}", json={"priority": 7, "metadata": {"note": "x"}}).json()
    assert (changed["priority"], changed["metadata"]) == (7, {"note": "x"})
    longer = client.patch(f"/v1/jobs/{job}", json={"budget": {"examples": 6400}}).json()
    assert (longer["progress"]["examples_total"], longer["priority"]) == (6400, 7)
    running = made_in(app, "running")
    assert client.patch(f"/v1/jobs/{running}", json={"budget": {"examples": 6400}}).status_code == 409
    assert client.patch(f"/v1/jobs/{job}", json={"status": "queued"}).status_code == 422


def test_deleting(app: FastAPI, client: Client) -> None:
    """204, and 404 from then on; of all that its runs stored, only what is published stays. 409 while it runs."""
    storage = app.state.storage
    with app.state.database.writing() as session:
        job = make_job_in(session, "succeeded")
    best = f"jobs/{job.id}/1/checkpoints/000000000320"
    published = {f"{best}/generator.safetensors", f"{best}/model.json"}
    for key in (*published, f"{best}/state.pt", f"jobs/{job.id}/1/grids/1.png", f"jobs/{job.id}/0/lost.pt"):
        storage.put_bytes(key, b"x")
    assert client.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert set(storage.list(f"jobs/{job.id}")) == published
    assert client.get(f"/v1/jobs/{job.id}").status_code == 404
    assert client.delete(f"/v1/jobs/{made_in(app, 'running')}").status_code == 409


@pytest.mark.parametrize("ref", ["job_0", "latest", "digits", "a" * 41, "a%00b", "%ff", "a%2Fb", "..", "%F0%9F%98%80"])
def test_unknown_jobs(caller: Client, ref) -> None:
    """404 for what could be an id, 404 or 422 for what could not; never more."""
    assert caller.get(f"/v1/jobs/{ref}").status_code in {404, 422}
