"""docker-compose.yml and the Dockerfile, without Docker: the file is checked, and its services run as processes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
import yaml
from PIL import Image

from app.client import Client
from app.settings import Settings
from tests.compose import FILE, Machine, read_services, seconds
from tests.s3 import BUCKET, CREDENTIALS, s3_server
from tests.servers import wait_until
from tests.source import HOUSE

KEY = "a-secret-of-this-test"
KEYS = {"GANVIL_API_KEYS": KEY}
OURS = ("api", "worker", "gpu-worker")


@pytest.mark.needs("compose")
@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_file_is_valid(profile: list[str]) -> None:
    """docker-compose itself finds nothing wrong with the file."""
    command = ["docker-compose", "--file", str(FILE), *profile, "config", "--quiet"]
    run = subprocess.run(command, env=os.environ | KEYS, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.needs("compose")
def test_keys_are_asked_for_by_compose() -> None:
    """Without API keys docker-compose refuses, and says what to set."""
    command = ["docker-compose", "--file", str(FILE), "config", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode != 0
    assert "set it to a secret" in run.stderr


def test_keys_are_asked_for() -> None:
    """There is no default for the API keys."""
    with pytest.raises(KeyError, match="set it to a secret"):
        read_services({})


@pytest.mark.needs("compose")
@pytest.mark.parametrize("given", [{}, {"GANVIL_SIGNING_SECRET": "a-secret-to-sign-with"}])
def test_the_api_signs_with_what_compose_is_given(given: dict[str, str]) -> None:
    """The secret reaches the API and no worker; without one there is none."""
    command = ["docker-compose", "--file", str(FILE), "config"]
    run = subprocess.run(command, env=os.environ | KEYS | given, capture_output=True, text=True, check=True, timeout=60)
    services = yaml.safe_load(run.stdout)["services"]
    told = {name: service.get("environment", {}).get("GANVIL_SIGNING_SECRET") for name, service in services.items()}
    assert told.pop("api") == given.get("GANVIL_SIGNING_SECRET")
    assert set(told.values()) == {None}


@pytest.mark.parametrize("name", ["postgres", "redis", *OURS])
def test_every_service_looks_after_itself(name: str) -> None:
    """Each service comes back after a crash and has a check of its health."""
    service = read_services(KEYS)[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", OURS)
def test_ours_have_few_rights(name: str) -> None:
    """What we wrote runs from one image as a user without rights, and cannot get any."""
    service = read_services(KEYS)[name]
    assert service["build"] == "."
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    users = re.findall(r"^USER (\S+)$", (HOUSE / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["ganvil"]


@pytest.mark.parametrize("name", ["worker", "gpu-worker"])
def test_workers_may_finish_their_checkpoint(name: str) -> None:
    """A worker is killed only after its trainers' own grace has passed."""
    assert seconds(read_services(KEYS)[name]["stop_grace_period"]) > Settings().stop_grace_seconds + 10


def test_only_the_api_is_reachable() -> None:
    """No port but the API's is published."""
    assert [name for name, service in read_services(KEYS).items() if "ports" in service] == ["api"]


def test_image_alone_is_not_open(tmp_path: Path) -> None:
    """A container that is started by itself refuses to run without API keys; with them it is served as compose serves it."""
    text = (HOUSE / "Dockerfile").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    variables = dict(word.split("=", 1) for word in lines.split())
    del variables["PATH"]
    (line,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    program, *arguments = command = json.loads(line)
    assert program == "python"
    environment = os.environ | variables | {"GANVIL_DATA_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=HOUSE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode != 0
    assert "Refusing to listen on '0.0.0.0' without API keys" in run.stderr
    api = read_services(KEYS)["api"]
    assert command == api["command"]
    assert variables["GANVIL_HOST"] == api["environment"]["GANVIL_HOST"]


def test_gpus_are_for_the_gpu_profile() -> None:
    """A machine without GPUs starts everything but the GPU worker."""
    services = read_services(KEYS | {"GANVIL_GPUS": "4", "GANVIL_CPU_QUEUES": "io"})
    assert [name for name, service in services.items() if "profiles" in service] == ["gpu-worker"]
    devices = services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert services["gpu-worker"]["environment"]["GANVIL_TRAIN_SLOTS"] == 4
    assert "--queues=io" in services["worker"]["command"]


@pytest.fixture(params=["a volume", "S3"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: str) -> Iterator[Machine]:
    """This machine, with the database that the file asks PostgreSQL for, and objects on disk or in S3."""
    wanted = read_services(KEYS)["postgres"]["environment"]
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        assert connection.info.user == wanted["POSTGRES_USER"]
        connection.execute(f"DROP DATABASE IF EXISTS {wanted['POSTGRES_DB']} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {wanted['POSTGRES_DB']}")
    with ExitStack() as running:
        variables = dict(KEYS)
        if request.param == "S3":
            endpoint = running.enter_context(s3_server())
            url = f"s3://{BUCKET}/objects?endpoint={endpoint}&region=us-east-1"
            variables |= {"GANVIL_STORAGE_URL": url, **CREDENTIALS}
        yield Machine(tmp_path, postgres_server, variables)


@pytest.mark.slow
@pytest.mark.needs("postgres")
def test_services_work_together(machine: Machine) -> None:
    """Each service runs by its own command and environment, finds itself healthy, and a job goes all the way through."""
    with ExitStack() as running:
        assert machine.postgres_is_healthy()
        running.enter_context(machine.running_redis())
        running.enter_context(machine.running("api"))
        wait_until(lambda: machine.is_healthy("api"), seconds=60)
        for name in ("worker", "gpu-worker"):
            running.enter_context(machine.running(name))
        wait_until(lambda: machine.is_healthy("worker") and machine.is_healthy("gpu-worker"), seconds=60)
        run_a_job(f"http://127.0.0.1:{machine.api_port}")
        with redis.Redis(port=machine.redis_port) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    on_disk = "GANVIL_STORAGE_URL" not in machine.variables
    assert (machine.folder / "data" / "objects" / "jobs").is_dir() == on_disk
    assert not machine.is_healthy("worker")


def run_a_job(url: str) -> None:
    """From a data set to an image, over HTTP."""
    assert httpx.get(f"{url}/v1/jobs", trust_env=False).status_code == 401
    with Client(url, KEY) as ganvil:
        dataset = ganvil.import_builtin("digits")
        ganvil.wait_until_prepared(dataset.id, timeout_seconds=60)
        job = ganvil.submit(dataset.id, model="numbers", budget={"examples": 256}, seed=1)
        assert ganvil.wait(job.id).status == "succeeded"
        with Image.open(BytesIO(ganvil.sample("numbers", seed=7))) as image:
            assert image.format == "PNG"
