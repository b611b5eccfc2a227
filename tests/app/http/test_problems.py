"""Errors: one format for all, and nothing of our insides in it."""

import logging

import httpx
import pytest
import structlog
from fastapi import FastAPI

from app import jobs
from app.errors import GanvilError
from app.main import create_app
from app.schemas.base import Problem
from tests.serving import serving

JSON = {"Content-Type": "application/json"}


def problem_of(response: httpx.Response, status: int, code: str) -> dict:
    """The problem document, after checking what all have in common."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:ganvil:problem:{code}")
    assert found["request_id"] == response.headers["x-request-id"]
    assert found["instance"] == response.request.url.path
    assert found["title"]
    assert found["detail"]
    assert set(found) <= {field.serialization_alias or name for name, field in Problem.model_fields.items()}
    return found


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/static/nothing.js", "/static/../main.py"]
)
def test_unknown_paths(caller: httpx.Client, path: str) -> None:
    """404."""
    problem_of(caller.get(path), 404, "not_found")


def test_wrong_methods(caller: httpx.Client) -> None:
    """405 that says what is allowed."""
    response = caller.put("/v1/jobs", json={})
    problem_of(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"
    assert caller.put("/v1/jobs/latest").headers["allow"] == "DELETE, GET, PATCH"
    for path in ("samples/7.png", "grid.png", "download"):
        assert caller.post(f"/v1/models/digits/{path}").headers["allow"] == "GET, HEAD"
    assert caller.post("/static/swagger.js").headers["allow"] == "GET, HEAD"
    assert caller.post("/docs").headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body", [b"{", b"dataset=digits", b"\xff\xfe", b'{"dataset": "a}', b"[" * 100_000, b"9" * 10_000, b"nul"]
)
def test_a_body_that_is_not_json(caller: httpx.Client, body: bytes) -> None:
    """400 that says so."""
    found = problem_of(caller.post("/v1/jobs", content=body, headers=JSON), 400, "bad_request")
    assert "JSON" in found["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'"x"', b"null"])
def test_a_body_that_is_no_object(caller: httpx.Client, body: bytes) -> None:
    """422 that says what is needed."""
    found = problem_of(caller.post("/v1/jobs", content=body, headers=JSON), 422, "invalid")
    assert "JSON object" in found["detail"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json(caller: httpx.Client, content_type: str | None) -> None:
    """422: a web form, which any page may send, is not taken for JSON."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    found = problem_of(caller.post("/v1/jobs", content=b'{"dataset": "digits"}', headers=headers), 422, "invalid")
    assert "application/json" in found["detail"]


def test_several_faults_are_all_named(caller: httpx.Client) -> None:
    """Each with a pointer and where it stood."""
    response = caller.post(
        "/v1/jobs?dry_run=perhaps", json={"seed": -1, "a/b~c": 1}, headers={"Idempotency-Key": "a b"}
    )
    found = problem_of(response, 422, "invalid")
    places = {(error["in"], error["pointer"]) for error in found["errors"]}
    assert places >= {("query", "#/dry_run"), ("body", "#/dataset"), ("body", "#/seed"), ("body", "#/a~1b~0c")}


@pytest.mark.parametrize(
    "body",
    [
        {f"key{n}": n for n in range(60_000)},
        {"dataset": "digits", "metadata": {f"key{n}": n for n in range(60_000)}},
        {"dataset": "digits", "config": {f"key{n}": n for n in range(60_000)}},
        {"dataset": "digits", "metadata": [[1] * 300] * 1000},
    ],
    ids=["unknown", "metadata", "config", "list"],
)
def test_a_huge_document_is_refused_at_once(caller: httpx.Client, body: dict) -> None:
    """Its values are not judged one by one, and the answer is short."""
    response = caller.post("/v1/jobs", json=body)
    found = problem_of(response, 422, "invalid")
    assert [error["pointer"] for error in found["errors"]] == ["#"]
    assert "10000 values" in found["detail"]


def test_many_faults_are_counted(caller: httpx.Client) -> None:
    """The first twenty are listed, each within bounds, and how many more there are is said."""
    response = caller.post("/v1/jobs", json={"dataset": "digits", "x" * 100_000: 1} | {f"key{n}": n for n in range(99)})
    found = problem_of(response, 422, "invalid")
    assert len(found["errors"]) == 20
    assert "99 more" in found["detail"]
    assert len(response.content) < 10_000


def test_a_long_text_is_measured_in_characters(caller: httpx.Client) -> None:
    """What is too long says how long it may be."""
    response = caller.post("/v1/jobs", json={"dataset": "digits", "metadata": {"note": "x" * 513}})
    (error,) = problem_of(response, 422, "invalid")["errors"]
    assert error["pointer"] == "#/metadata/note"
    assert "at most 512 characters" in error["detail"]


def test_pointers_lead_to_what_was_sent(caller: httpx.Client) -> None:
    """Also where one of several types was possible: each step of the pointer is one in the body."""
    body = {"model": "digits", "seeds": ["one"], "classes": [None], "truncation": 2}
    found = problem_of(caller.post("/v1/generations", json=body), 422, "invalid")
    pointers = {error["pointer"] for error in found["errors"]}
    assert pointers >= {"#/truncation", "#/classes/0"}
    assert all(pointer.split("/")[1] in body for pointer in pointers)


def test_what_was_sent_is_not_echoed(caller: httpx.Client) -> None:
    """Neither values nor lone surrogates of the request come back."""
    body = b'{"dataset": "digits", "\\ud800": 1, "seed": "secret"}'
    response = caller.post("/v1/jobs", content=body, headers=JSON)
    problem_of(response, 422, "invalid")
    assert "secret" not in response.text


@pytest.mark.parametrize("given", ["abc", "0123-AB.c_d", "x" * 128])
def test_a_request_id_is_kept(caller: httpx.Client, given: str) -> None:
    """The caller's own, so that it can be followed through systems."""
    assert caller.get("/health/live", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "\xe9", "<script>"])
def test_an_unsound_request_id_is_replaced(caller: httpx.Client, given: str) -> None:
    """By one of ours: it goes into logs."""
    response = caller.get("/health/live", headers={"X-Request-Id": given.encode("latin-1")})
    assert response.headers["x-request-id"].startswith("req_")


def test_requests_are_logged(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    """Each with its id, status and duration, where so much is to be logged."""
    with structlog.testing.capture_logs() as lines, serving(app) as client:
        client.get("/v1/jobs")
    assert lines == []
    caplog.set_level(logging.INFO, "ganvil.requests")
    with structlog.testing.capture_logs() as lines, serving(app) as client:
        client.get("/v1/jobs", headers={"X-Request-Id": "mine"})
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/jobs", 200)
    assert line["milliseconds"] > 0


def test_a_fault_of_ours_tells_nothing(app: FastAPI, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with the request's id and no word of what happened; the log has the traceback under that id."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr(jobs, "list_jobs", broken)
    with structlog.testing.capture_logs() as lines:
        response = client.get("/v1/jobs")
    problem_of(response, 500, "internal")
    assert "secret" not in response.text
    (line,) = [line for line in lines if line["event"] == "unexpected error"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


def errors(kind: type[GanvilError] = GanvilError) -> list[type[GanvilError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in errors(child))]


def test_every_error_has_its_own_code() -> None:
    """Programs tell errors apart by it."""
    codes = [error.code for error in errors()]
    assert len(codes) == len(set(codes))


def test_create_app_needs_nothing(settings) -> None:
    """Making the application opens no database and makes no folder: that is for its start."""
    create_app(settings)
    assert not settings.data_dir.exists()
