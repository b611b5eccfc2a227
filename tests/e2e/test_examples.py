"""Every operation's example, sent as it stands in the OpenAPI document to a running service with a worker."""

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.live import running_up
from tests.servers import wait_until

# In an order in which each finds what it is about: `latest` is first a job that has succeeded, then one that is steered.
BEFORE_TRAINING = ["import_dataset", "upload_dataset"]
AFTER_TRAINING = [
    *("get_live", "get_ready", "list_presets", "list_families", "list_workers", "get_queue"),
    *("list_datasets", "get_dataset", "preview_dataset", "list_jobs", "get_job", "update_job"),
    *(
        "get_job_events",
        "get_job_metrics",
        "list_job_grids",
        "get_job_grid",
        "get_job_timelapse",
        "list_job_checkpoints",
    ),
    *("publish_checkpoint", "list_models", "get_model", "download_model", "put_alias", "delete_alias"),
    *("get_sample", "get_grid", "generate", "inspect_sample", "interpolate", "get_interpolation", "sign_urls"),
    *("pin_model", "unpin_model"),
    *("create_batch", "list_batches", "get_batch"),
]
# Of the batch that has been made; then of one more, which is cancelled.
MADE = ["get_batch_manifest", "get_batch_archive", "get_batch_shard", "create_batch", "cancel_batch", "delete_batch"]
STEERING = ["submit_job", "pause_job", "resume_job", "cancel_job"]
AT_LAST = ["retry_job", "cancel_job", "delete_job", "delete_model", "delete_dataset"]


class Examples:
    """Sends the examples of a document."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.document = client.get("/openapi.json").json()
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }

    def send(self, operation_id: str) -> httpx.Response:
        method, path, operation = self.operations[operation_id]
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", str(example_of(parameter)))
        content = operation.get("requestBody", {}).get("content", {})
        if "multipart/form-data" in content:
            inspected = operation_id == "inspect_sample"
            file = ("sample.png", self.send("get_sample").content) if inspected else ("squares.zip", squares())
            return self.client.request(method, path, files={"file": file})
        if "application/json" in content:
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            return self.client.request(method, path, json=self.document["components"]["schemas"][name]["example"])
        return self.client.request(method, path)

    def work(self, *operation_ids: str) -> None:
        for operation_id in operation_ids:
            response = self.send(operation_id)
            assert response.is_success, f"{operation_id}: {response.text}"


def example_of(parameter: dict[str, Any]) -> Any:
    """What Swagger UI fills in."""
    if "examples" in parameter:
        return next(iter(parameter["examples"].values()))["value"]
    return parameter["schema"]["enum"][0]


def squares() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for shade in range(0, 250, 10):
            picture = io.BytesIO()
            Image.fromarray(np.full((16, 16), shade, np.uint8)).save(picture, "PNG")
            archive.writestr(f"{'dark' if shade < 128 else 'light'}/{shade}.png", picture.getvalue())
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_examples_work_as_they_stand(tmp_path: Path) -> None:
    """All of them, once `digits` is imported and a job has run."""
    with running_up(tmp_path / "data") as up, httpx.Client(base_url=up.url, timeout=30, trust_env=False) as client:
        examples = Examples(client)

        def job_is(status: str) -> bool:
            return client.get("/v1/jobs/latest").json()["status"] == status

        examples.work(*BEFORE_TRAINING)
        wait_until(lambda: client.get("/v1/datasets/digits").json()["status"] == "ready", seconds=60)
        client.post("/v1/jobs", json={"dataset": "digits", "budget": {"examples": 1000}}).raise_for_status()
        wait_until(lambda: job_is("succeeded"), seconds=120)
        examples.work(*AFTER_TRAINING)
        wait_until(lambda: client.get("/v1/batches/latest").json()["status"] == "succeeded", seconds=60)
        examples.work(*MADE, *STEERING)
        wait_until(lambda: job_is("cancelled"), seconds=60)
        examples.work(*AT_LAST[:2])
        wait_until(lambda: job_is("cancelled"), seconds=60)
        examples.work(*AT_LAST[2:])
        assert {*BEFORE_TRAINING, *AFTER_TRAINING, *MADE, *STEERING, *AT_LAST} == set(examples.operations)
