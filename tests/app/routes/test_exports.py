"""Downloading a model in every format, over HTTP, from real generators."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fastapi import FastAPI
from httpx import Client, Response

from app import exporting
from app.exporting import ExportFailed
from app.registry import Resolved
from app.storage import Storage
from models.generator import latents, load_generator
from models.manifest import MANIFEST, WEIGHTS
from tests.generators import publish_generator
from tests.servers import wait_until

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def pets(app: FastAPI, client: Client, tmp_path: Path) -> Resolved:
    """A conditional generator, the version 1 of `pets`."""
    return publish_generator(app.state.database, app.state.storage, tmp_path, "pets", channels=3, classes=CLASSES)


URL = "/v1/models/pets/download"
PATIENCE = 150  # seconds: a child that imports torch takes its time on a busy machine


def ask(client: Client, **headers: str) -> Response:
    """Asks for the ONNX file of `pets`; `if_none_match` is the header If-None-Match."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(URL, params={"format": "onnx"}, headers=named, timeout=PATIENCE)


def stored(app: FastAPI, resolved: Resolved) -> set[str]:
    storage: Storage = app.state.storage
    return {key.rpartition("/")[2] for key in storage.list(resolved.snapshot_key)}


def test_the_weights_and_the_manifest(pets: Resolved, client: Client, tmp_path: Path) -> None:
    """Saved under their names in one folder, the two files are all that sampling in Python needs."""
    folder = tmp_path / "mine"
    folder.mkdir()
    weights = client.get(URL)
    manifest = client.get(URL, params={"format": "manifest"})
    (folder / WEIGHTS).write_bytes(weights.content)
    (folder / MANIFEST).write_bytes(manifest.content)
    assert load_generator(folder).info.classes == CLASSES
    assert manifest.json()["dataset"]["sha256"] == "d" * 64
    assert manifest.headers["content-type"] == "application/json"
    assert manifest.headers["etag"] == f'"{hashlib.sha256(manifest.content).hexdigest()}"'
    assert manifest.headers["content-disposition"] == 'attachment; filename="pets-1.json"'


def test_onnx(app: FastAPI, pets: Resolved, client: Client, tmp_path: Path) -> None:
    """A file that makes our images in ONNX Runtime, with the headers, conditions and ranges that the weights have."""
    whole = ask(client)
    assert whole.status_code == 200
    session = onnxruntime.InferenceSession(whole.content, providers=["CPUExecutionProvider"])
    generator = load_generator(tmp_path / "pets")
    z, labels = latents(generator.info, range(5)), np.array([2, 1, 0, 1, 2])
    (images,) = session.run(None, {"z": z, "labels": labels})
    assert np.abs(images - generator.forward(z, labels)).max() <= 1e-4
    assert session.get_modelmeta().custom_metadata_map["generator_sha256"] == pets.sha256

    etag = f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert whole.headers["etag"] == etag
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.headers["content-disposition"] == 'attachment; filename="pets-1.onnx"'
    head = client.head(URL, params={"format": "onnx"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "accept-ranges", "content-type"):
        assert head.headers[name] == whole.headers[name]
    assert ask(client, if_none_match=etag).status_code == 304
    tail = ask(client, range="bytes=-100", if_range=etag)
    assert (tail.status_code, tail.content) == (206, whole.content[-100:])
    beyond = ask(client, range=f"bytes={len(whole.content)}-")
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"

    app.state.storage.delete([f"{pets.snapshot_key}/{WEIGHTS}"])  # it is not made again
    assert ask(client).content == whole.content
    assert client.delete("/v1/models/pets:1").status_code == 204  # it goes with the model
    assert stored(app, pets) == set()


def test_many_who_ask_at_once(app: FastAPI, pets: Resolved, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Get what is made once; those for whom there is no room are told to come again."""
    runs = []
    run = exporting._run
    monkeypatch.setattr(exporting, "_run", lambda *given: (runs.append(given), run(*given)))
    exporter = app.state.exporter
    with ThreadPoolExecutor() as threads:
        with exporter._exporting:
            asking = [threads.submit(ask, client) for _ in range(exporting.AT_ONCE)]
            wait_until(lambda: exporter._places._value == 0, seconds=20)
            turned_away = ask(client)
        answers = [each.result() for each in asking]
    assert (turned_away.status_code, turned_away.json()["code"]) == (429, "busy")
    assert int(turned_away.headers["retry-after"]) > 0
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == len(runs) == 1


def test_an_unknown_format(pets: Resolved, client: Client) -> None:
    """Is refused with the names of those that there are."""
    refused = client.get(URL, params={"format": "pickle"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    for name in ("safetensors", "manifest", "onnx"):
        assert f"'{name}'" in refused.json()["detail"]


def test_damaged_weights(app: FastAPI, pets: Resolved, client: Client) -> None:
    """Cannot be exported, which the answer explains; nothing is stored."""
    app.state.storage.put_bytes(f"{pets.snapshot_key}/{WEIGHTS}", b"damaged")
    failed = ask(client)
    assert (failed.status_code, failed.json()["code"]) == (500, "export_failed")
    assert failed.json()["detail"].startswith("generator.safetensors is damaged")
    assert stored(app, pets) == {WEIGHTS, MANIFEST}


def test_files_that_are_not_on_record(app: FastAPI, pets: Resolved, client: Client, tmp_path: Path) -> None:
    """Are not exported: a manifest of another generator and one that is none give 503, files that are gone 410."""
    publish_generator(app.state.database, app.state.storage, tmp_path, "other", channels=3, classes=CLASSES, seed=1)
    for manifest in ((tmp_path / "other" / MANIFEST).read_bytes(), b"{}"):
        app.state.storage.put_bytes(f"{pets.snapshot_key}/{MANIFEST}", manifest)
        assert ask(client).status_code == 503
    app.state.storage.delete([f"{pets.snapshot_key}/{MANIFEST}"])
    assert ask(client).status_code == 410
    assert client.get(URL, params={"format": "manifest"}).status_code == 404


def in_every_child(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python programs that we start from now on begin with this."""
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("code", "status", "problem", "said"),
    [
        ("import sys; sys.modules['onnx'] = None", 501, "not_installed", "pip install onnx"),
        ("import os; os._exit(7)", 500, "export_failed", "ended with status 7"),
    ],
)
def test_a_child_that_cannot(
    app: FastAPI,
    pets: Resolved,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
    problem: str,
    said: str,
) -> None:
    """Where packages are missing the answer says which to install; a child that dies is an error of its own."""
    in_every_child(code, tmp_path, monkeypatch)
    failed = ask(client)
    assert (failed.status_code, failed.json()["code"]) == (status, problem)
    assert said in failed.json()["detail"]
    assert stored(app, pets) == {WEIGHTS, MANIFEST}


def test_a_failure_is_remembered(
    app: FastAPI, pets: Resolved, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while the same answer comes at once, to HEAD too; then it is tried again."""
    with monkeypatch.context() as broken:
        in_every_child("import os; os._exit(7)", tmp_path, broken)
        failed = ask(client)
    again = ask(client)
    assert (failed.status_code, again.status_code) == (500, 500)
    assert again.json()["detail"] == failed.json()["detail"]
    assert client.head(URL, params={"format": "onnx"}).status_code == 500
    monkeypatch.setattr(exporting, "FAILED_SECONDS", 0.0)
    assert ask(client).status_code == 200


def test_failures_are_not_kept_without_end() -> None:
    """The oldest makes room for the next."""
    failures = exporting._Failures()
    for number in range(exporting.MOST_FAILED + 1):
        failures.add(str(number), "too slow")
    failures.check("0")
    with pytest.raises(ExportFailed, match="too slow"):
        failures.check("1")


def test_head_makes_nothing(app: FastAPI, pets: Resolved, client: Client) -> None:
    """Of a file that is not made yet it tells neither length nor ETag."""
    head = client.head(URL, params={"format": "onnx"})
    assert (head.status_code, head.content) == (200, b"")
    assert not {"content-length", "etag"} & head.headers.keys()
    assert stored(app, pets) == {WEIGHTS, MANIFEST}


def test_a_child_is_told_no_secret(
    pets: Resolved, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of our environment it has what Python and its libraries read, and nothing that says where our data lie."""
    told = tmp_path / "told.json"
    in_every_child(
        f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w')); os._exit(7)", tmp_path, monkeypatch
    )
    monkeypatch.setenv("GANVIL_API_KEYS", "a-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    assert ask(client).status_code == 500
    environment = json.loads(told.read_bytes())
    assert environment["PYTHONPATH"] == str(tmp_path)
    assert not {name for name in environment if name.startswith(("GANVIL_", "AWS_"))}


def test_a_child_that_takes_too_long(
    app: FastAPI, pets: Resolved, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is ended, and the answer says so."""
    monkeypatch.setattr(exporting, "LONGEST_SECONDS", 0.01)
    failed = ask(client)
    assert (failed.status_code, failed.json()["code"]) == (500, "export_failed")
    assert "took more than" in failed.json()["detail"]
    assert stored(app, pets) == {WEIGHTS, MANIFEST}
