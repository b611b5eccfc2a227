"""Idempotency keys of submissions over HTTP."""

import json
import threading

import pytest
from fastapi import FastAPI
from httpx import Client

from app.tables import Dataset
from tests.factories import make_dataset

REQUEST = {"dataset": "digits", "budget": {"examples": 640}, "seed": 1}


@pytest.fixture
def digits(app: FastAPI, client: Client) -> Dataset:
    with app.state.database.writing() as session:
        return make_dataset(session, name="digits")


def count(client: Client) -> int:
    return len(client.get("/v1/jobs").json()["data"])


def test_a_repeated_submission_is_one_job(digits, client: Client) -> None:
    """The same key and body, however it is spaced, replay status, body and Location; another body gives 422."""
    key = {"Idempotency-Key": "abc"}
    first = client.post("/v1/jobs", json=REQUEST, headers=key)
    spaced = json.dumps(dict(reversed(REQUEST.items())), indent=4)
    again = client.post("/v1/jobs", content=spaced, headers=key | {"Content-Type": "application/json"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/jobs", json=REQUEST | {"seed": 2}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert count(client) == 1


def test_a_refused_submission_may_be_corrected_under_its_key(digits, client: Client) -> None:
    """Only what created something is remembered."""
    key = {"Idempotency-Key": "abc"}
    assert client.post("/v1/jobs", json=REQUEST | {"preset": "none"}, headers=key).status_code == 422
    assert client.post("/v1/jobs", json=REQUEST, headers=key).status_code == 201


def test_an_old_key_may_be_used_anew(app: FastAPI, digits, client: Client) -> None:
    """After idempotency_seconds a key is as new."""
    key = {"Idempotency-Key": "abc"}
    first = client.post("/v1/jobs", json=REQUEST, headers=key).json()
    with app.state.database.writing() as session:
        from app.tables import IdempotencyKey

        for row in session.query(IdempotencyKey):
            row.created_at -= 100_000
    assert client.post("/v1/jobs", json=REQUEST, headers=key).json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_bad_keys_are_refused(caller: Client, key) -> None:
    """422 that names the header."""
    response = caller.post("/v1/jobs", json=REQUEST, headers={"Idempotency-Key": key.encode("latin-1")})
    assert response.status_code == 422
    assert response.json()["errors"][0] | {"detail": ""} == {
        "pointer": "#/idempotency-key",
        "in": "header",
        "detail": "",
    }


def test_repetitions_at_once_make_one_job(digits, client: Client) -> None:
    """Of many at the same time one creates; the others replay it or are told to wait."""
    responses = []

    def submit() -> None:
        responses.append(client.post("/v1/jobs", json=REQUEST, headers={"Idempotency-Key": "at-once"}))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {response.status_code for response in responses} <= {201, 409}
    assert len({response.json()["id"] for response in responses if response.status_code == 201}) == 1
    assert all(response.headers["retry-after"] == "1" for response in responses if response.status_code == 409)
    assert count(client) == 1
