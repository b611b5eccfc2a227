"""The OpenAPI document: what it says, and that the service does what it says."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance, unsupported_method

from app import jobs
from app.http.parameters import DEADLINE_HEADER
from app.main import create_app
from app.schemas.base import Problem
from app.settings import Settings
from app.tables import Dataset
from tests.factories import claimed, make_dataset, make_job, new_checkpoint
from tests.generators import export_generator
from tests.serving import serving

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [(path, method) for path, found in DOCUMENT["paths"].items() for method in found]
PROBLEM = {"$ref": "#/components/schemas/Problem"}


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_operations_are_described(path: str, method: str) -> None:
    """Each has a summary, a description, one known tag and a snake_case id."""
    found = operation(path, method)
    assert found["summary"]
    assert found["description"]
    assert found["tags"][0] in [tag["name"] for tag in DOCUMENT["tags"]]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", found["operationId"])


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_errors_are_problems(path: str, method: str) -> None:
    """Every error answer is documented as application/problem+json, 401 among them; health alone is open."""
    found = operation(path, method)
    if path.startswith("/health/"):
        assert found["security"] == []
        return
    assert found["security"] == [{"key": []}]
    errors = {status: answer for status, answer in found["responses"].items() if status >= "400"}
    for status, answer in errors.items():
        ((media_type, content),) = answer["content"].items()
        assert (media_type, content["schema"]) == ("application/problem+json", PROBLEM)
        example = Problem.model_validate(content["example"])
        assert (str(example.status), example.instance) == (status, path)
        assert example.code != "not_found" or status == "404"
    assert set(errors) >= {"400", "401", "403", "503"}
    assert "422" in errors or not (found.get("parameters") or found.get("requestBody"))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_required_parts_have_examples(path: str, method: str) -> None:
    """What must be filled in is filled in already in Swagger UI: path parameters and JSON bodies."""
    found = operation(path, method)
    for parameter in found.get("parameters", []):
        if parameter["required"] and not parameter["schema"].get("enum"):
            assert parameter.get("examples"), parameter["name"]
    body = found.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        name = body["schema"]["$ref"].rpartition("/")[2]
        assert "example" in DOCUMENT["components"]["schemas"][name]


def test_operation_ids_are_unique() -> None:
    """Generated clients name their functions after them."""
    ids = [operation(path, method)["operationId"] for path, method in OPERATIONS]
    assert len(ids) == len(set(ids))


def test_the_application_leaves_torch_out() -> None:
    """Importing it, making it and writing its document imports neither torch nor a worker."""
    code = "import sys, app.main; app.main.create_app().openapi(); print({'torch', 'worker', 'sklearn'} & {m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, str]]:
    """A running service that asks for a key, and its URL."""
    folder = tmp_path_factory.mktemp("api") / "data"
    app = create_app(Settings(data_dir=folder, trainer_threads=1, sweep_seconds=60, api_keys=("key-of-this-test",)))
    with serving(app) as client:
        yield app, str(client.base_url)


@pytest.fixture
def address(service: tuple[FastAPI, str], tmp_path: Path) -> str:
    """The URL of the service, which has the data set and the model `digits`, a finished job and one that waits."""
    app, url = service
    with app.state.database.writing() as session:
        dataset = session.query(Dataset).filter_by(name="digits", deleted_at=None).one_or_none()
        dataset = dataset or make_dataset(session, name="digits")
        job = claimed(session, make_job(session, dataset))
        checkpoint = new_checkpoint(job, 320)
        classes = [entry["name"] for entry in dataset.classes]
        sha256 = export_generator(tmp_path, classes=classes, z_dim=job.config["network"]["z_dim"])
        jobs.record_checkpoint(session, job.id, job.fence, dataclasses.replace(checkpoint, sha256=sha256))
        jobs.succeed(session, job.id, job.fence)
        make_job(session, dataset)
    for path in tmp_path.iterdir():
        app.state.storage.put_file(f"{checkpoint.snapshot_key}/{path.name}", path)
    return url


schema = schemathesis.openapi.from_dict(DOCUMENT)
# A body may keep to the document and still be refused, and so may be one that does not: that is for the tests of each route.
LEFT_OUT = [negative_data_rejection, positive_data_acceptance, unsupported_method]
HEALTH = list(HealthCheck)
# Who asks for an answer within no time gets a 504, and means it.
HEADERS = {"Authorization": "Bearer key-of-this-test", DEADLINE_HEADER: "30"}
# The same requests each time, so that luck has no say in whether the tests pass.
QUICK = hypothesis_settings(
    derandomize=True, max_examples=8, phases=[Phase.explicit, Phase.generate], suppress_health_check=HEALTH
)
DEEP = hypothesis_settings(derandomize=True, max_examples=300, suppress_health_check=HEALTH)


@schema.parametrize()
@QUICK
def test_the_service_keeps_to_its_document(case: schemathesis.Case, address: str) -> None:
    """Whatever is sent, the answer is one that the document names, of its type and schema, and never a 5xx."""
    case.call_and_validate(base_url=address, headers=HEADERS, excluded_checks=LEFT_OUT, timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@schema.parametrize()
@DEEP
def test_the_service_keeps_to_its_document_thoroughly(case: schemathesis.Case, address: str) -> None:
    """The same with many more requests."""
    case.call_and_validate(base_url=address, headers=HEADERS, excluded_checks=LEFT_OUT, timeout=30)
