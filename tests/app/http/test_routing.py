"""Query parameters that an operation does not know."""

from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [(path, method) for path, found in DOCUMENT["paths"].items() for method in found]


def parameters(path: str, method: str, place: str) -> list[dict[str, Any]]:
    return [each for each in DOCUMENT["paths"][path][method].get("parameters", []) if each["in"] == place]


def address(path: str, method: str) -> str:
    """The path with the document's examples filled in."""
    filled = {}
    for each in parameters(path, method, "path"):
        examples = [example["value"] for example in each.get("examples", {}).values()]
        filled[each["name"]] = (examples or each["schema"]["enum"])[0]
    return path.format(**filled)


@pytest.mark.parametrize(("path", "method"), [each for each in OPERATIONS if not each[0].startswith("/health/")])
def test_unknown_parameters_are_refused(caller: httpx.Client, path: str, method: str) -> None:
    """Every operation of the document answers 422, names each one that it does not know and lists those that it does."""
    known = [each["name"] for each in parameters(path, method, "query")]
    response = caller.request(method, address(path, method), params={"a/b~c": 1, "colour": "red"})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    body = response.json()
    assert [(error["in"], error["pointer"]) for error in body["errors"]] == [
        ("query", "#/a~1b~0c"),
        ("query", "#/colour"),
    ]
    for error in body["errors"]:
        assert error["detail"].endswith(f"there is {', '.join(known) or 'none'}")
    assert "422" in DOCUMENT["paths"][path][method]["responses"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_known_parameters_are_not(caller: httpx.Client, path: str, method: str) -> None:
    """Whatever an operation makes of its own parameters, it does not call them unknown; a name in other letters it does."""
    names = [each["name"] for each in parameters(path, method, "query")]
    for name in names:
        assert "unknown here" not in caller.request(method, address(path, method), params={name: "1"}).text
        assert "unknown here" in caller.request(method, address(path, method), params={name.upper(): "1"}).text


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_probes_may_ask_with_any_query(caller: httpx.Client, path: str) -> None:
    """A monitor that adds something of its own, so that no cache answers, is answered all the same."""
    assert caller.get(path, params={"t": "1"}).json()["status"] in {"live", "ready", "degraded"}


def test_a_misspelt_filter_is_no_filter(caller: httpx.Client) -> None:
    """`?statu=running` does not list all jobs: the answer says which parameters there are."""
    response = caller.get("/v1/jobs", params={"statu": "running"})
    assert response.status_code == 422
    assert response.json()["detail"] == (
        "query #/statu: unknown here, where there is status, model, dataset, limit, cursor."
    )


def test_head_knows_what_get_knows(caller: httpx.Client) -> None:
    """The same parameters, the same refusal."""
    url = "/v1/models/digits/samples/7.png"
    assert caller.head(url, params={"trunaction": 0.5}).status_code == 422
    assert caller.head(url, params={"truncation": 0.5}).status_code == 404


def test_a_refused_request_makes_nothing(caller: httpx.Client) -> None:
    """The parameter is judged before the body is."""
    body = {"source": {"kind": "builtin", "name": "digits"}}
    assert caller.post("/v1/datasets/import", params={"dry_run": True}, json=body).status_code == 422
    assert caller.get("/v1/datasets").json()["data"] == []


def test_pages_take_anything(caller: httpx.Client) -> None:
    """Only operations are strict: links to the documentation may carry what they like."""
    for path in ("/docs", "/openapi.json", "/static/swagger.js"):
        assert caller.get(path, params={"utm_source": "mail"}).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/v1/models/digits/samples/1_0.png",
        "/v1/models/digits/samples/7.0.png",
        "/v1/models/digits/samples/+7.png",
        "/v1/models/digits/samples/-0.png",
        "/v1/models/digits/samples/%207.png",
        "/v1/models/digits/samples/%D9%A7.png",
        "/v1/models/digits/samples/7.png?truncation=0.5_0",
        "/v1/models/digits/samples/7.png?truncation=%200.5",
        "/v1/models/digits/samples/7.png?scale=1_0",
        "/v1/models/digits/samples/7.png?quality=%2B5",
        "/v1/jobs?limit=1_0",
        "/v1/batches/latest/shards/1_0",
    ],
)
def test_numbers_that_only_python_reads_are_refused(caller: httpx.Client, address: str) -> None:
    """422 that names the parameter, for GET and HEAD; as others write it, the same number is taken."""
    refused = caller.get(address)
    assert refused.status_code == 422
    assert "unable to parse" in refused.json()["errors"][0]["detail"]
    if "/samples/" in address:
        assert caller.head(address).status_code == 422


@pytest.mark.parametrize("query", ["truncation=0.5", "truncation=5e-1", "truncation=.5", "scale=10", "scale=010"])
def test_numbers_as_others_write_them_are_taken(caller: httpx.Client, query: str) -> None:
    """Nothing is wrong with these but that there is no such model."""
    assert caller.get(f"/v1/models/digits/samples/7.png?{query}").status_code == 404


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_single_parameter_is_given_once(caller: httpx.Client, path: str, method: str) -> None:
    """Twice is a 422 that names it, unless it is a list."""
    for each in parameters(path, method, "query"):
        answer = caller.request(method, address(path, method), params=[(each["name"], "1")] * 2)
        assert ("given 2 times" in answer.text) == (each["schema"].get("type") != "array")


@pytest.mark.parametrize("values", [("5", "5"), ("5", "0.001")])
def test_a_single_header_is_given_once(caller: httpx.Client, values: tuple[str, str]) -> None:
    """The first of two deadlines is not taken for both."""
    twice = [("X-Deadline-Seconds", value) for value in values]
    refused = caller.get("/v1/models/digits/samples/7.png", headers=twice)
    assert refused.status_code == 422
    assert refused.json()["errors"][0] == {
        "in": "header",
        "pointer": "#/X-Deadline-Seconds",
        "detail": "given 2 times: give it once",
    }
