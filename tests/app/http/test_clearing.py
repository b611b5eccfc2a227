"""What becomes of a deletion while the object storage does not answer."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import Client

from app.main import create_app
from app.settings import Settings
from tests.factories import make_dataset, make_job_in
from tests.serving import serving


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """An application whose object storage nobody runs."""
    return create_app(settings.model_copy(update={"storage_url": "s3://none?endpoint=http://127.0.0.1:1&region=none"}))


@pytest.fixture
def client(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    with serving(app) as client:
        yield client


def test_a_deletion_counts_without_the_storage(
    app: FastAPI, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """204 for a job, a model and a data set whose objects cannot be reached: they are left behind, and the log says so."""
    with app.state.database.writing() as session:
        job = make_job_in(session, "succeeded")
        dataset = make_dataset(session)
    paths = (f"/v1/jobs/{job.id}", f"/v1/models/{job.model_name}", f"/v1/datasets/{dataset.id}")
    assert [client.delete(path).status_code for path in paths] == [204, 204, 204]
    assert [client.get(path).status_code for path in paths] == [404, 410, 410]
    assert capsys.readouterr().out.count("storage.left_behind") == 3
